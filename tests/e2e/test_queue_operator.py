"""What the operator does to the queue, while the gateway runs and while it is down; and the end of the process."""

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.queue_stage import ME, Place, Scene, Who, dsn, id_of, scene, states

LATER = "451 4.3.0 come back later"


@pytest.fixture
def stage() -> Iterator[Scene]:
    """Give a gateway that retries nothing by itself during a test, and does not wait long for hops when it ends."""
    with scene({"delivery.retry": ["1h"]}, grace=0.5) as found:
        yield found


def act(stage: Scene, *words: str) -> str:
    """Run a command on the queue; give what it printed."""
    ran = stage.gateway.run("queue", *words)
    assert ran.status == 0, ran.output
    return ran.output


@pytest.mark.parametrize("running", [True, False], ids=["running", "down"])
def test_every_command(stage: Scene, running: bool) -> None:
    place = stage.place()
    place.d.say(dot=LATER)
    sent = {name: stage.message() for name in ("kept", "held", "freed", "returned", "gone", "moved")}
    ids = {name: id_of(stage.send(Who.SPF, place.one, octets)) for name, octets in sent.items()}
    place.d.say(dot="250 2.0.0 taken")
    if not running:
        stage.stop()
    assert [entry["id"] for entry in stage.listed()] == list(ids.values()), "the oldest first"
    assert (
        act(stage, "show", ids["kept"], "--content")
        .encode()
        .replace(b"\r\n", b"\n")
        .endswith(sent["kept"].replace(b"\r\n", b"\n"))
    )
    act(stage, "hold", ids["held"], ids["freed"], ids["moved"])
    assert [entry["id"] for entry in stage.listed("--state", "held")] == [ids[n] for n in ("held", "freed", "moved")]
    act(stage, "release", ids["freed"])
    act(stage, "bounce", ids["returned"], "--yes")
    act(stage, "delete", ids["gone"], "--yes")
    act(stage, "resend", ids["moved"], "--to", f"other@e{place.number}.test")
    act(stage, "retry", "--domain", f"d{place.number}.test")
    if not running:
        stage.gateway.start()
    (moved,) = place.e.wait()
    assert moved.recipients == (f"other@e{place.number}.test",)
    assert moved.octets.endswith(sent["moved"]), "octet for octet"
    (told,) = stage.home.wait()
    (about,) = dsn(told).recipients
    assert about["Action"] == "failed"
    place.d.wait(2)
    stage.ask(verb="delete", ids=[ids["held"]])
    stage.wait_empty()
    arrived = [message.octets for message in place.d.accepted]
    assert len(arrived) == 2
    assert all(any(octets.endswith(sent[name]) for octets in arrived) for name in ("kept", "freed"))
    assert (len(place.e.accepted), len(stage.home.accepted)) == (1, 1)


def test_a_retry_does_not_wait_for_a_hop_that_was_down(stage: Scene) -> None:
    """Whoever retries knows more than we do: that the hop was twice found to be down is no reason to wait."""
    place = stage.place()
    place.d.down()
    ids = [id_of(stage.send(Who.SPF, place.one)) for _ in range(2)]
    for count in (1, 2):
        act(stage, "retry", "--all")
        for id in ids:
            stage.wait_story("deferred", id, count + 1)
    place.d.up()
    act(stage, "retry", "--all")
    place.d.wait(2)
    stage.wait_empty()


# The end


def blocked(place: Place) -> tuple[threading.Event, threading.Event]:
    """Have the hop wait after the dot; give what says that it does, and what lets it go on."""
    arrived, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        go_on.wait(30)

    place.d.say(before_dot=hold)
    return arrived, go_on


def test_sigterm_waits_for_what_the_courier_left_running(stage: Scene) -> None:
    """The sender was told 250 at the deadline; the hop answers while we end, and that is recorded."""
    place = stage.place()
    _, go_on = blocked(place)
    assert stage.send(Who.SPF, place.one).code == 250
    stage.gateway.terminate()
    stage.gateway.wait_event("stopping")
    go_on.set()
    assert stage.gateway.wait_end() == 0
    assert stage.listed() == [], "delivered, and known to be"
    stage.gateway.start()
    assert len(place.d.accepted) == 1


def test_sigterm_waits_for_what_the_queue_tries(stage: Scene) -> None:
    stage.stop()
    stage.gateway.tune()
    stage.gateway.start()
    place = stage.place()
    place.d.say(dot=LATER)
    id = id_of(stage.send(Who.SPF, place.one))
    arrived, go_on = blocked(place)
    place.d.say(dot="250 2.0.0 taken")
    act(stage, "retry", id)
    assert arrived.wait(20)
    stage.gateway.terminate()
    stage.gateway.wait_event("stopping", 2)
    go_on.set()
    assert stage.gateway.wait_end() == 0
    assert stage.listed() == []
    assert len(place.d.accepted) == 1


@pytest.mark.parametrize("running", [False, True], ids=["tried by the queue", "left by the courier"])
def test_sigterm_waits_not_for_ever_and_loses_nothing(stage: Scene, running: bool) -> None:
    place = stage.place()
    place.d.say(dot=LATER)
    octets = stage.message()
    if running:
        arrived, go_on = blocked(place)
    id = id_of(stage.send(Who.SPF, place.one, octets))
    if not running:
        arrived, go_on = blocked(place)
        act(stage, "retry", id)
    assert arrived.wait(20)
    place.d.say(dot="")
    stage.stop()
    go_on.set()
    (entry,) = stage.listed()
    assert states(entry) == {f"box@d{place.number}.test": "queued"}
    place.d.say(dot="250 2.0.0 taken")
    stage.gateway.start()
    stage.ask(verb="retry", ids=[id])
    place.d.wait()
    stage.wait_empty()
    assert [message.octets.endswith(octets) for message in place.d.accepted] == [True]
    assert ME not in str(stage.home.received)
