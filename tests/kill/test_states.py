"""Rows 53 and 54: the whole gateway dies at each state of a message, at the very system call that leads on from it.

At its entry a call has not been done: so dying at `pwrite64` is before the commit, and at `fdatasync` after it, since
SIGKILL takes nothing away that was written. That a notice is being stored is a state of the small program (`program`):
here the owner is told after five minutes.
"""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from forwarder.ops.control import ControlError
from tests.kill.scene import Mail, Moods, Scene, scene
from tests.kill.tracing import at, attached, dead, missing
from tests.lab.gateway import Value
from tests.lab.maildir import wait_for
from tests.lab.world import loopback_world

DIE = "signal=KILL"
# So that nothing but the test moves a message; and what strace holds up is slow, but its sender is known all the same.
SLOW: dict[str, Value] = {"delivery.retry": ["30s"], "dns.timeout": "10s"}
pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "strace")


@pytest.fixture(scope="module")
def one() -> Iterator[Scene]:
    with loopback_world() as world, scene(world, SLOW) as running:
        yield running


@pytest.fixture(scope="module")
def two() -> Iterator[Scene]:
    settings: dict[str, Value] = {**SLOW, "workers": 2, "delivery.cutthrough_deadline": "1s"}
    with loopback_world() as world, scene(world, settings) as running:
        yield running


def moods(of: Scene) -> Moods:
    found = of.inbox.script.recipients
    assert isinstance(found, Moods)
    return found


def copies(of: Scene, mail: Mail) -> list[int]:
    """How many copies each mailbox got."""
    arrived = of.arrived()
    return [arrived[mail.token, mailbox] for _, mailbox in mail.mailboxes]


def died(of: Scene) -> None:
    """Start again what has died; nothing is left over."""
    of.kills += 1
    of.restart()
    of.settle()
    assert of.problems() == []
    assert of.left_over() == []


@pytest.mark.parametrize("call", ["fsync", "pwrite64"])
def test_before_the_commit_nothing_was_promised_and_nothing_is_left(one: Scene, call: str) -> None:
    mail = one.mail("two")
    with attached([one.parent], at(call, DIE)):
        assert one.send(mail) == 0
    assert any((one.spool / "incoming").iterdir()) == (call != "pwrite64")
    died(one)
    assert copies(one, mail) == [0, 0]
    assert one.send(mail) == 250
    one.settle()
    assert copies(one, mail) == [1, 1]


def test_after_the_commit_it_is_delivered_though_the_sender_heard_nothing(one: Scene) -> None:
    mail = one.mail("two", size=1_200_000)
    with attached([one.parent], at("fdatasync", DIE)):
        assert one.send(mail) == 0
    died(one)
    assert copies(one, mail) == [1, 1]


def states(of: Scene) -> list[str]:
    """Give the states of all parts that wait, or whose letter has others that do."""
    return sorted(to["state"] for letter in of.queue() for to in letter["to"])


def queued(of: Scene, *aliases: str) -> Mail:
    """Have a mail in the queue that was put off once."""
    moods(of).grey = 1.0
    mail = of.mail(*aliases)
    assert of.send(mail) == 250
    wait_for(lambda: of.queue("queued") and of.queue("queued")[0]["to"][-1]["attempts"] == 1, what="no attempt")
    return mail


def test_in_the_queue(one: Scene) -> None:
    mail = queued(one, "two")
    os.kill(one.parent, signal.SIGKILL)
    moods(one).grey = 0.0
    died(one)
    assert copies(one, mail) == [1, 1]


def test_before_the_dot(one: Scene) -> None:
    mail, mood = one.mail("good"), moods(one)
    mood.asked.clear()
    mood.go_on.clear()
    assert one.send(mail) == 250
    assert mood.asked.wait(20)
    os.kill(one.parent, signal.SIGKILL)
    mood.go_on.set()
    died(one)
    assert copies(one, mail) == [1]


class Pause:
    """Holds a hop back between the dot and its reply; the first time only."""

    def __init__(self) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(30)


@pytest.fixture
def pause(one: Scene) -> Iterator[Pause]:
    pause = Pause()
    one.inbox.say(before_dot=pause)
    yield pause
    pause.go_on.set()
    one.inbox.say(before_dot=lambda: None)


def test_between_the_dot_and_its_reply_a_second_copy_may_be_made(one: Scene, pause: Pause) -> None:
    mail = one.mail("good")
    assert one.send(mail) == 250
    assert pause.reached.wait(20)
    os.kill(one.parent, signal.SIGKILL)
    pause.go_on.set()  # the hop has it, and we shall never know
    died(one)
    assert copies(one, mail) == [2]


@pytest.mark.parametrize(("call", "count"), [("pwrite64", 2), ("fdatasync", 1)])
def test_after_the_reply_it_depends_on_the_record(one: Scene, pause: Pause, call: str, count: int) -> None:
    mail = one.mail("good")
    assert one.send(mail) == 250
    assert pause.reached.wait(20)
    with attached([one.parent], at(call, DIE)):
        pause.go_on.set()
        wait_for(lambda: dead(one.parent), what="the gateway lives on")
    died(one)
    assert copies(one, mail) == [count]


@pytest.mark.parametrize("call", ["rename", "pwrite64", "fdatasync"])
def test_while_a_dsn_is_stored(one: Scene, call: str) -> None:
    mail, mood = one.mail("bad"), moods(one)
    mood.asked.clear()
    mood.go_on.clear()
    assert one.send(mail) == 250
    assert mood.asked.wait(20)
    with attached([one.parent], at(call, DIE)):
        mood.go_on.set()
        wait_for(lambda: dead(one.parent), what="the gateway lives on")
    died(one)
    assert one.reported()[mail.token, "bad@forward.test"] == 1


@pytest.mark.parametrize(("verb", "call", "held"), [("hold", "fdatasync", 1), ("retry", "pwrite64", 0)])
def test_while_the_operator_changes_a_part(one: Scene, verb: str, call: str, held: int) -> None:
    mail = queued(one, "grey")
    with attached([one.parent], at(call, DIE)), pytest.raises(ControlError):
        one.ask(verb, all=True)
    moods(one).grey = 0.0
    died(one)
    assert len(one.held()) == held
    one.ask("release", state="held")
    one.settle()
    assert copies(one, mail) == [1]


@pytest.mark.parametrize(("verb", "to", "count", "told"), [("resend", "grey@inbox.test", 1, 0), ("bounce", "", 0, 1)])
def test_what_the_operator_has_made_and_what_it_replaces_are_one_commit(
    one: Scene, verb: str, to: str, count: int, told: int
) -> None:
    mail = queued(one, "grey")
    with attached([one.parent], at("fdatasync", DIE)), pytest.raises(ControlError):
        one.ask(verb, all=True, **({"resend_to": to} if to else {}))
    moods(one).grey = 0.0
    died(one)
    assert copies(one, mail) == [count]
    assert one.reported()[mail.token, "grey@forward.test"] == told


def test_while_a_crash_is_cleaned_up(one: Scene) -> None:
    mail = queued(one, "grey")
    lost = one.mail("good")
    with attached([one.parent], at("pwrite64", DIE)):
        assert one.send(lost) == 0
    assert one.gateway.wait_end() == -signal.SIGKILL
    for call in ("fsync", "unlink"):
        one.start_under(at(call, DIE))
    one.gateway.start()
    moods(one).grey = 0.0
    one.settle()
    assert one.left_over() == one.problems() == []
    assert (copies(one, mail), copies(one, lost)) == ([1], [0])


def test_a_worker_that_dies_while_it_stores_takes_nothing_along(two: Scene) -> None:
    mail, workers = two.mail("two"), two.gateway.workers()
    with attached(list(workers.values()), at("rename", DIE)):
        assert two.send(mail) == 0
    wait_for(lambda: len(set(two.gateway.workers().values()) - set(workers.values())) == 1, what="no new worker")
    assert two.send(mail) == 250
    two.settle()
    assert copies(two, mail) == [1, 1]
    assert two.problems() == []


@pytest.mark.parametrize(("call", "count"), [("pwrite64", 0), ("fdatasync", 1)])
def test_the_parent_dies_while_it_records_what_a_worker_gives_it(two: Scene, call: str, count: int) -> None:
    mail = two.mail("two")
    with attached([two.parent], at(call, DIE)):
        assert two.send(mail) == 0
    died(two)
    assert copies(two, mail) == [count, count]


@pytest.mark.parametrize(("call", "count"), [("pwrite64", 2), ("fdatasync", 1)])
def test_what_came_too_late_for_its_sender_is_known_once_it_is_recorded(two: Scene, call: str, count: int) -> None:
    mail, pause = two.mail("good"), Pause()
    two.inbox.say(before_dot=pause)
    assert two.send(mail, stranger=True) == 451
    with attached([two.parent], at(call, DIE)):
        pause.go_on.set()
        wait_for(lambda: dead(two.parent), what="the gateway lives on")
    two.inbox.say(before_dot=lambda: None)
    died(two)
    assert two.send(mail, stranger=True) == 250
    assert copies(two, mail) == [count]


def test_a_worker_dies_whose_attempt_is_the_spools_first(two: Scene) -> None:
    """Its sender was told 250 when the deadline came: what it was at is tried again, and nothing else."""
    two.gateway.change({"delivery.mode": "cutthrough", "delivery.cutthrough_deadline": "1s"})
    mail, pause = two.mail("two"), Pause()
    two.inbox.say(before_dot=pause)
    assert two.send(mail) == 250
    wait_for(lambda: states(two) == ["delivered", "queued"], what="not the one alone")
    count = len(two.gateway.events("worker"))
    for pid in two.gateway.workers().values():
        os.kill(pid, signal.SIGKILL)
    pause.go_on.set()  # the hop has it, and we shall never know
    two.gateway.wait_event("worker", count + 2)
    two.inbox.say(before_dot=lambda: None)
    two.settle()
    assert two.problems() == two.left_over() == []
    assert sorted(copies(two, mail)) == [1, 2]


def test_a_letter_and_the_dsn_that_its_first_attempt_owes_are_one_commit(two: Scene) -> None:
    two.gateway.change({"delivery.mode": "cutthrough", "delivery.cutthrough_deadline": "20s"})
    mail = two.mail("three")
    moods(two).grey = 1.0
    with attached([two.parent], at("fdatasync", DIE)):
        assert two.send(mail) == 0
    moods(two).grey = 0.0
    died(two)
    assert copies(two, mail) == [1, 1, 0]
    assert two.reported()[mail.token, "three@forward.test"] == 1
