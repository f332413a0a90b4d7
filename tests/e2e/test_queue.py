"""What the sender is told and what becomes of the rest: the table of section 3 of the design, on the wire.

Each cell for a sender who is authenticated and for somebody who only claims to be the same one: the reply, what the
next hops get, what lies in the queue, and who is told. Nobody is told anything who need not be: `home` has no mail
unless a test waits for it.
"""

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.queue_stage import ME, Scene, Who, dsn, id_of, scene, states

EACH = pytest.mark.parametrize("who", [Who.SPF, Who.NOBODY])
EVERY = pytest.mark.parametrize("who", list(Who))
LATER = "451 4.3.0 come back later"
NEVER = "550 5.7.17 we do not want this"
OURS = "550 5.7.23 SPF of the sending domain does not cover that host"


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with scene() as found:
        yield found


@pytest.fixture
def stage(everybody: Scene) -> Iterator[Scene]:
    everybody.begin()
    yield everybody
    everybody.end()


# All accepted


@EACH
def test_all_take_it(stage: Scene, who: Who) -> None:
    place = stage.place()
    octets = stage.message(who)
    answer = stage.send(who, place.both, octets)
    assert (answer.code, answer.text[:15]) == (250, "2.0.0 Forwarded"), answer
    assert [len(hop.accepted) for hop in (place.d, place.e)] == [1, 1]
    assert all(hop.accepted[0].octets.endswith(octets) for hop in (place.d, place.e))
    assert stage.queue() == []


# All refused


@EACH
def test_all_refuse_it(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(dot=NEVER)
    place.e.say(recipients={f"box@e{place.number}.test": "550 5.1.1 nobody of that name"})
    answer = stage.send(who, place.both)
    assert answer.code // 10 == 55, answer
    assert answer.text.startswith("5.")
    assert "we do not want this" in answer.text and "nobody of that name" in answer.text, "both are quoted"
    assert stage.queue() == []
    assert stage.home.received == []


@EACH
def test_the_one_refuses_it(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(dot=NEVER)
    answer = stage.send(who, place.one)
    assert (answer.code, answer.text[:6]) == (550, "5.7.17"), answer
    assert stage.queue() == []
    assert stage.home.received == []


# None accepted, anything open


@EVERY
def test_a_temporary_refusal(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(dot=LATER)
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    if who is Who.NOBODY:
        assert (answer.code, answer.text[:5]) == (451, "4.3.0"), answer
        assert "come back later" in answer.text
        assert stage.queue() == []
        return
    assert (answer.code, answer.text[:12]) == (250, "2.0.0 Queued"), answer
    (entry,) = stage.listed()
    assert (entry["id"], entry["from"]) == (id_of(answer), ME)
    assert [(part["address"], part["state"]) for part in entry["to"]] == [(place.one, "queued")]
    assert "come back later" in entry["to"][0]["reason"]
    place.d.say(dot="250 2.0.0 taken")
    (taken,) = place.d.wait()
    assert taken.octets.endswith(octets)
    assert {message.wire for message in place.d.received} == {taken.wire}, "the same octets each time"
    stage.wait_empty()
    assert len(place.d.accepted) == 1


@EACH
def test_a_temporary_and_a_permanent_refusal(stage: Scene, who: Who) -> None:
    """Of what is queued, the refusal is told as soon as the sender has been told 250."""
    place = stage.place()
    place.d.say(dot=NEVER)
    place.e.say(dot=LATER)
    answer = stage.send(who, place.both)
    if who is Who.NOBODY:
        assert answer.code == 451, answer
        assert "come back later" in answer.text
        assert stage.queue() == []
        return
    assert answer.code == 250, answer
    (told,) = stage.home.wait()
    (about,) = dsn(told).recipients
    assert about["Final-Recipient"] == f"rfc822; {place.both}"
    place.e.say(dot="250 2.0.0 taken")
    place.e.wait()
    stage.wait_empty()
    assert (len(place.d.accepted), len(place.e.accepted), len(stage.home.received)) == (0, 1, 1)


@EACH
def test_a_hop_that_is_down(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.down()
    answer = stage.send(who, place.one)
    assert answer.code == (451 if who is Who.NOBODY else 250), answer
    place.d.up()
    if who is Who.NOBODY:
        assert answer.text.startswith("4.")
        assert stage.queue() == []
        return
    place.d.wait()
    stage.wait_empty()
    assert len(place.d.accepted) == 1


@EACH
def test_an_attempt_that_is_still_running(stage: Scene, who: Who) -> None:
    """It is not tried again beside the attempt that runs: what was refused by another hop is tried twice meanwhile."""
    place, other = stage.place(), stage.place()
    go_on = threading.Event()
    place.d.say(before_dot=lambda: go_on.wait(30))
    other.d.say(dot=LATER)
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    if who is Who.NOBODY:
        assert answer.code == 451, answer
        assert "has not answered in time" in answer.text
        assert stage.queue() == []
        go_on.set()
        place.d.wait()
        stage.wait_story("delivered", id_of(answer))
        assert stage.send(who, place.one, octets).code == 250, "the sender's retry"
        assert len(place.d.accepted) == 1
        return
    assert answer.code == 250, answer
    (entry,) = stage.queue()
    assert states(entry) == {f"box@d{place.number}.test": "queued"}
    clock = id_of(stage.send(who, other.one))
    stage.wait_story("deferred", clock, 2)
    assert place.d.connections == 1, "nobody tries what is being tried"
    go_on.set()
    stage.wait_story("delivered", entry["id"])
    stage.delete(clock)
    assert stage.queue() == []
    assert [message.octets.endswith(octets) for message in place.d.received] == [True]


@EACH
def test_a_destination_that_is_paused_is_not_even_asked(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(mail="421 4.7.28 unusual rate of mail from you")
    assert stage.send(Who.NOBODY, place.one).code == 451
    asked = place.d.connections
    answer = stage.send(who, place.one)
    assert place.d.connections == asked
    if who is Who.NOBODY:
        assert (answer.code, answer.text[:2]) == (451, "4."), answer
        assert "unusual rate" in answer.text, "quoted from when it was asked"
        assert stage.queue() == []
        return
    assert answer.code == 250, answer
    (entry,) = stage.queue()
    assert states(entry) == {f"box@d{place.number}.test": "queued"}
    stage.delete(entry["id"])


# Some accepted


@EACH
@pytest.mark.parametrize("running", [False, True], ids=["refused", "running"])
def test_some_take_it_and_the_rest_later(stage: Scene, who: Who, running: bool) -> None:
    place = stage.place()
    go_on = threading.Event()
    place.e.say(**({"before_dot": lambda: go_on.wait(30)} if running else {"dot": LATER}))
    octets = stage.message(who)
    answer = stage.send(who, place.both, octets)
    assert answer.code == 250, answer
    (entry,) = stage.queue()
    assert states(entry) == {f"box@d{place.number}.test": "delivered", f"box@e{place.number}.test": "queued"}
    place.e.say(dot="250 2.0.0 taken")
    go_on.set()
    place.e.wait()
    stage.wait_empty()
    assert [len(hop.accepted) for hop in (place.d, place.e)] == [1, 1]
    assert place.e.accepted[0].octets.endswith(octets)
    assert stage.home.received == []


@EVERY
def test_some_take_it_and_the_rest_never(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.e.say(recipients={f"box@e{place.number}.test": "550 5.1.1 nobody of that name"})
    octets = stage.message(who)
    answer = stage.send(who, place.both, octets)
    assert answer.code == 250, answer
    assert len(place.d.accepted) == 1
    if who is Who.NOBODY:
        (entry,) = stage.queue()
        assert states(entry)[f"box@e{place.number}.test"] == "held"
        assert entry["bounceable"] is False
        assert stage.story("held", entry["id"])
        stage.delete(entry["id"])
        assert stage.home.received == []
        return
    (told,) = stage.home.wait()
    assert told.recipients == (ME,)
    report = dsn(told)
    (about,) = report.recipients
    assert about["Final-Recipient"] == f"rfc822; {place.both}"
    assert (about["Action"], about["Status"]) == ("failed", "5.1.1")
    assert about["Remote-MTA"] == f"dns; mx.e{place.number}.test"
    assert about["Diagnostic-Code"].replace("\n", "") == "smtp; 550 5.1.1 nobody of that name"
    assert report.message["To"] == ME
    assert b"Subject:" in told.octets.partition(b"text/rfc822-headers")[2]
    stage.wait_empty()
    assert len(stage.home.received) == 1


# A refusal that speaks of us


@EACH
def test_a_fault_of_ours(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(dot=OURS)
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    alerts = [event for event in stage.gateway.events("alert") if f"mx.d{place.number}.test" in str(event.get("relay"))]
    assert [event["ruling"] for event in alerts] == ["spf"]
    if who is Who.NOBODY:
        assert answer.code == 451, answer
        assert "does not cover that host" in answer.text
        assert stage.queue() == []
        return
    assert answer.code == 250, answer
    (entry,) = stage.queue()
    assert states(entry) == {f"box@d{place.number}.test": "queued"}
    stage.wait_story("deferred", entry["id"])
    place.d.say(dot="250 2.0.0 taken")
    place.d.wait()
    stage.wait_empty()
    assert len(place.d.accepted) == 1
    assert stage.home.received == []


# After the dot


@EACH
def test_a_hop_that_closes_after_the_dot_gets_the_same_octets_again(stage: Scene, who: Who) -> None:
    place = stage.place()
    place.d.say(dot="")
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    place.d.say(dot="250 2.0.0 taken")
    if who is Who.NOBODY:
        assert answer.code == 451, answer
        assert stage.queue() == []
        assert stage.send(who, place.one, octets).code == 250
    else:
        assert answer.code == 250, answer
        place.d.wait()
        stage.wait_empty()
        first, second = place.d.received
        assert (first.wire, first.mail) == (second.wire, second.mail)
    assert [message.octets.endswith(octets) for message in place.d.received] == [True, True]
    assert len(place.d.accepted) == 1
