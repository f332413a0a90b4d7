"""What passed here and is refused by DMARC behind us, when its sender has gone: offered once more, with a From of ours.

What the next hop would make of it is said by dkimpy and OpenDMARC's library (`tests.lab.receiver`), not by us.
"""

from collections.abc import Iterator

import pytest

from forwarder.ops.control import call
from tests.e2e.queue_stage import Place, Scene, Who, dsn, id_of, scene, states
from tests.lab.gateway import Value
from tests.lab.hop import Hop, Received
from tests.lab.maildir import wait_for
from tests.lab.receiver import Good, Published, author, dmarc, signatures
from tests.rewrite.judges import rsa

OURS = "forward.test"
RSA = rsa("s1", OURS)
TAKEN = "250 2.0.0 taken"
LATER = "451 4.3.0 come back later"
REFUSED = (
    "550-5.7.26 Unauthenticated email from sender.test is not accepted due to\r\n"
    "550-5.7.26 domain's DMARC policy. Please contact the administrator of\r\n"
    "550 5.7.26 sender.test domain if this was a legitimate mail."
)
MODES: dict[str, dict[str, Value]] = {"queue": {"delivery.mode": "queue"}, "cutthrough": {}}


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest) -> Iterator[tuple[str, Scene, Published]]:
    with scene(MODES[request.param]) as made:
        published = Published(made.world)
        published.give_keys(made.gateway, RSA)
        published.add("_dmarc.forward.test", "v=DMARC1; p=reject; aspf=s")
        assert call(made.gateway.folder / "run" / "control.sock", "keys.reload")["ok"]
        yield request.param, made, published


@pytest.fixture
def stage(mode: tuple[str, Scene, Published]) -> Iterator[Scene]:
    _, stage, _ = mode
    stage.begin()
    yield stage
    stage.end()


@pytest.fixture
def published(mode: tuple[str, Scene, Published]) -> Published:
    return mode[2]


def told(hop: Hop, *replies: str) -> None:
    """Have a hop answer one message after the other; behind the last it takes all."""
    left = iter(replies)
    hop.say(before_dot=lambda: hop.say(dot=next(left, TAKEN)))


def check(taken: Received, octets: bytes, alias: str, published: Published) -> None:
    """Hold a copy to what is promised: from us, signed by us, DMARC passes by that, and the rest is as it was."""
    assert f'\r\nFrom: "Me via forward.test" <{alias}>\r\n'.encode() in taken.octets
    assert b'\r\nReply-To: "Me" <me@sender.test>\r\n' in taken.octets
    assert author(taken.octets) == OURS
    assert Good(OURS, "s1") in signatures(taken.octets, published)
    assert dmarc(taken.octets, taken.sender, published) == "pass"
    assert taken.octets.endswith(octets.replace(b"From: Me <me@sender.test>\r\n", b""))


@pytest.mark.parametrize("who", [Who.SPF, Who.DKIM])
def test_it_is_offered_once_more(stage: Scene, published: Published, who: Who) -> None:
    place = stage.place()
    told(place.d, LATER, REFUSED)
    octets = stage.message(who)
    answer = stage.send(who, place.one, octets)
    assert answer.code == 250, answer
    (taken,) = place.d.wait()
    check(taken, octets, place.one, published)
    stage.wait_empty()
    assert [author(each.octets) for each in place.d.received] == ["sender.test", "sender.test", OURS]
    (event,) = stage.story("rewritten", id_of(answer))
    assert (event["code"], event["to"]) == (550, place.one)
    stage.wait_story("delivered", str(event["again"]))
    assert stage.home.received == stage.office.received == [], "there is nothing to be told"


def test_at_the_first_attempt_from_the_queue(
    mode: tuple[str, Scene, Published], stage: Scene, published: Published
) -> None:
    """In cut-through mode it is the session that offers again, while the sender waits: for each the same comes out."""
    place = stage.place()
    told(place.d, REFUSED)
    octets = stage.message()
    assert stage.send(Who.SPF, place.one, octets).code == 250
    (taken,) = place.d.wait()
    check(taken, octets, place.one, published)
    stage.wait_empty()
    assert len(place.d.received) == 2


def test_it_is_offered_no_third_time_and_its_sender_is_told_once(stage: Scene) -> None:
    place = stage.place()
    told(place.d, LATER, REFUSED, REFUSED)
    assert stage.send(Who.SPF, place.one).code == 250
    (bounce,) = stage.home.wait()
    (about,) = dsn(bounce).recipients
    assert (about["Final-Recipient"], about["Action"]) == (f"rfc822; {place.one}", "failed")
    stage.wait_empty()
    assert (len(place.d.received), len(stage.home.received)) == (3, 1)


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_goes_on_with_it(stage: Scene, published: Published, kill: bool) -> None:
    place = stage.place()
    told(place.d, LATER, REFUSED, *[LATER] * 1000)
    octets = stage.message()
    answer = stage.send(Who.SPF, place.one, octets)
    (event,) = stage.wait_story("rewritten", id_of(answer))
    stage.stop(kill=kill)
    place.d.say(before_dot=lambda: None, dot=TAKEN)
    stage.gateway.start()
    (taken,) = place.d.wait()
    check(taken, octets, place.one, published)
    stage.wait_empty()
    stage.wait_story("delivered", str(event["again"]))
    assert len(place.d.accepted) == len(stage.story("rewritten", id_of(answer))) == 1


def test_what_became_of_it_is_shown(stage: Scene) -> None:
    place = stage.place()
    told(place.d, LATER, REFUSED, *[LATER] * 1000)
    place.e.say(dot=LATER)
    answer = stage.send(Who.SPF, place.both)
    stage.wait_story("rewritten", id_of(answer))
    old, new = _both(stage, place, id_of(answer))
    assert states(old) == {f"box@d{place.number}.test": "replaced", f"box@e{place.number}.test": "queued"}
    assert states(new) == {f"box@d{place.number}.test": "queued"}
    shown = stage.gateway.run("queue", "show", id_of(answer))
    assert "offered again with a From of ours" in shown.output, shown.output
    for hop in (place.d, place.e):
        hop.say(before_dot=lambda: None, dot=TAKEN)
    stage.wait_empty()
    assert (len(place.d.accepted), len(place.e.accepted)) == (1, 1)


def _both(stage: Scene, place: Place, id: str) -> list[dict[str, object]]:
    entries = wait_for(lambda: found if len(found := stage.queue()) == 2 else [], what=f"no two of {place.both}")
    return sorted(entries, key=lambda entry: entry["id"] != id)
