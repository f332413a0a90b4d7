"""The queue of several processes: a worker's attempts belong to the parent's spool, also when the worker dies."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.queue_stage import Place, Scene, Who, id_of, scene, states
from tests.lab.maildir import wait_for

LATER = "451 4.3.0 come back later"


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with scene({"workers": 2}) as found:
        yield found


@pytest.fixture
def stage(everybody: Scene) -> Iterator[Scene]:
    everybody.begin()
    yield everybody
    everybody.end()


def blocked(place: Place) -> tuple[threading.Event, threading.Event]:
    """Have the first hop wait after the dot; give what says that it does, and what lets it go on."""
    arrived, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        go_on.wait(30)

    place.d.say(before_dot=hold)
    return arrived, go_on


def kill_worker(stage: Scene, id: str) -> None:
    """Kill the worker that took a message, and wait for the next one."""
    (event,) = [one for one in stage.gateway.events("authenticated") if one["id"] == id]
    number, started = event["worker"], len(stage.gateway.events("worker"))
    assert isinstance(number, int)
    os.kill(stage.gateway.pid_of(number), signal.SIGKILL)
    stage.gateway.wait_event("worker", started + 1)


def test_an_attempt_left_running_is_the_first_attempt(stage: Scene) -> None:
    place = stage.place()
    _, go_on = blocked(place)
    octets = stage.message()
    answer = stage.send(Who.SPF, place.one, octets)
    assert answer.code == 250, answer
    (entry,) = stage.queue()
    assert states(entry) == {f"box@d{place.number}.test": "queued"}
    go_on.set()
    stage.wait_story("delivered", id_of(answer))
    stage.wait_empty()
    assert [message.octets.endswith(octets) for message in place.d.received] == [True]


def test_a_worker_that_dies_while_its_attempt_runs(stage: Scene) -> None:
    """The hop had the message and gave no reply: it is tried again with the same octets (RFC 1047 at the most)."""
    place = stage.place()
    arrived, go_on = blocked(place)
    answer = stage.send(Who.SPF, place.one)
    assert arrived.is_set()
    kill_worker(stage, id_of(answer))
    go_on.set()
    place.d.wait(2)
    stage.wait_story("delivered", id_of(answer))
    stage.wait_empty()
    first, second = place.d.accepted
    assert (first.mail, first.wire) == (second.mail, second.wire)


def test_a_worker_that_dies_before_the_hop_took_it(stage: Scene) -> None:
    place = stage.place()
    arrived, go_on = blocked(place)
    answer = stage.send(Who.SPF, place.one)
    assert arrived.is_set()
    place.d.say(dot="")
    kill_worker(stage, id_of(answer))
    go_on.set()
    wait_for(lambda: place.d.received, what="the hop did not go on")
    place.d.say(dot="250 2.0.0 taken")
    stage.wait_story("delivered", id_of(answer))
    stage.wait_empty()
    assert len(place.d.accepted) == 1


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "dies"])
def test_what_a_worker_gave_to_the_spool_stays(stage: Scene, dies: bool) -> None:
    place = stage.place()
    place.e.say(dot=LATER)
    octets = stage.message(Who.NOBODY)
    answer = stage.send(Who.NOBODY, place.both, octets)
    assert answer.code == 250, answer
    if dies:
        kill_worker(stage, id_of(answer))
    place.e.say(dot="250 2.0.0 taken")
    (taken,) = place.e.wait()
    assert taken.octets.endswith(octets)
    stage.wait_empty()
    assert [len(hop.accepted) for hop in (place.d, place.e)] == [1, 1]


def test_a_retry_that_another_worker_gets_makes_no_second_copy(stage: Scene) -> None:
    """What a stranger was told to send again is delivered meanwhile: every process knows, also after a restart."""
    place = stage.place()
    _, go_on = blocked(place)
    octets = stage.message(Who.NOBODY)
    answer = stage.send(Who.NOBODY, place.one, octets)
    assert answer.code == 451, answer
    go_on.set()
    place.d.wait()
    stage.wait_story("delivered", id_of(answer))
    stage.restart()
    assert stage.send(Who.NOBODY, place.one, octets).code == 250
    assert len(place.d.accepted) == 1


def test_sigterm_loses_nothing_that_a_worker_left_running(stage: Scene) -> None:
    place = stage.place()
    _, go_on = blocked(place)
    answer = stage.send(Who.SPF, place.one)
    assert answer.code == 250, answer
    stopping = len(stage.gateway.events("stopping"))
    stage.gateway.terminate()
    stage.gateway.wait_event("stopping", stopping + 1)
    go_on.set()
    assert stage.gateway.wait_end() == 0
    assert stage.listed() == [], "delivered, and known to be"
    stage.gateway.start()
    assert len(place.d.accepted) == 1
