"""What comes in goes out as it came: every odd message, by a real socket, through the real gateway, to a next hop.

From the first original octet to the last, what the next hop got must be what was sent, and in front of it there may
only be whole header lines of ours. What cannot be passed on so is refused in the session, and the hop sees nothing.

The gateway signs and seals, and takes more than by default (`WIDE`); what the defaults refuse is sent to another one.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from forwarder.model.headers import split_header
from tests.corpus.collection import ODD
from tests.corpus.odd import RECIPIENT, Odd, arriving
from tests.corpus.signed import CANONICAL, Key, make_key, sign, verifies
from tests.lab.client import Answer, Client, stuff
from tests.lab.findings import ON_TOP
from tests.lab.gateway import Gateway, Value, ours_and_original
from tests.lab.hop import Hop, Received
from tests.lab.receiver import Published
from tests.lab.world import Host, World, loopback_world
from tests.rewrite.judges import ed25519, rsa

RULES = "[forward.test]\nodd -> inbox@hop.test\n"
WIDE: dict[str, Value] = {"message.from": "any", "limits.header_size": "1MB", "limits.header_fields": 10_000}


@dataclass
class Scene:
    """A sender, the gateway and a next hop."""

    world: World
    sender: Host
    gateway: Gateway
    usual: Gateway
    hop: Hop

    def send(self, octets: bytes, options: str = "", gateway: Gateway | None = None) -> Answer:
        """Send from the sender to the odd address, over a connection of its own."""
        with Client(self.world, (gateway or self.gateway).host, self.sender, timeout=60) as client:
            client.ehlo()
            words = options or ("" if octets.isascii() else "BODY=8BITMIME")
            return client.send("odd@sender.test", RECIPIENT, octets, words)

    def taken(self, before: int) -> Received:
        """Give the one message that the hop got since."""
        assert len(self.hop.received) == before + 1
        return self.hop.received[-1]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with loopback_world() as world:
        sender, gate = world.host("mx.sender.test", "sender.test"), world.host("mx.forward.test")
        wide, usual = (
            Gateway(world, gate, RULES, settings=WIDE),
            Gateway(world, world.host("mx2.forward.test"), RULES),
        )
        published = Published(world)
        for gateway in (wide, usual):
            published.give_keys(gateway, rsa("s1", "forward.test"), ed25519("e1", "forward.test"))
        with Hop(world, world.host("hop.test")) as taker, wide, usual:
            yield Scene(world, sender, wide, usual, taker)


def check(received: Received, original: bytes) -> None:
    """Check the octets, and that what stands in front of them is ours."""
    ours, _ = ours_and_original(received.octets, original)
    header = split_header(ours)
    assert header.size == len(ours), ours
    names = {field.name for field in header.fields}
    assert names - set(ON_TOP) == {b"received"}
    assert {b"delivered-to", b"dkim-signature"} <= names
    assert re.match(rb"[^\r\n]+\r\n", ours)


@pytest.mark.parametrize("one", [one for one in ODD if not one.refusal], ids=lambda one: one.name)
def test_arrives_as_it_was_sent(scene: Scene, one: Odd) -> None:
    before = len(scene.hop.received)
    octets = one.octets
    answer = scene.send(octets, "BODY=8BITMIME SMTPUTF8" if one.utf8 else "")
    assert answer.code == 250, answer
    received = scene.taken(before)
    check(received, arriving(octets))
    assert ("SMTPUTF8" in received.mail) == one.utf8
    scene.hop.received.clear()


def test_arrives_in_the_smallest_pieces(scene: Scene) -> None:
    """All that is short once more, in segments of one to seven octets, in one connection."""
    lot = random.Random(5321)
    short = [one for one in ODD if not one.refusal and not one.utf8 and len(one.octets) < 1500]
    assert len(short) > 30
    with Client(scene.world, scene.gateway.host, scene.sender) as client:
        client.ehlo()
        for one in short:
            before = len(scene.hop.received)
            for line in ("MAIL FROM:<odd@sender.test> BODY=8BITMIME", f"RCPT TO:<{RECIPIENT}>", "DATA"):
                assert client.command(line).code in (250, 354)
            wire = stuff(one.octets)
            while wire:
                size = lot.randrange(1, 8)
                client.write(wire[:size])
                wire = wire[size:]
            assert client.read().code == 250, one.name
            check(scene.taken(before), arriving(one.octets))


@pytest.mark.parametrize("one", [one for one in ODD if one.refusal], ids=lambda one: one.name)
def test_is_refused_and_goes_nowhere(scene: Scene, one: Odd) -> None:
    before = len(scene.hop.received)
    answer = scene.send(one.octets)
    assert f"{answer.code} {answer.text}".startswith(one.refusal + " "), answer
    assert len(scene.hop.received) == before


@pytest.mark.parametrize("one", [one for one in ODD if one.by_default], ids=lambda one: one.name)
def test_is_refused_by_default(scene: Scene, one: Odd) -> None:
    before = len(scene.hop.received)
    answer = scene.send(one.octets, gateway=scene.usual)
    assert f"{answer.code} {answer.text}".startswith(one.by_default + " "), answer
    assert len(scene.hop.received) == before


@pytest.mark.parametrize("one", [one for one in ODD if one.name.startswith("smuggling")], ids=lambda one: one.name)
def test_smuggled_unstuffed_it_is_one_message(scene: Scene, one: Odd) -> None:
    """The same with dots as a smuggler sends them: only CRLF . CRLF ends, so all of it is one refused message."""
    before = len(scene.hop.received)
    with Client(scene.world, scene.gateway.host, scene.sender) as client:
        client.ehlo()
        for line in ("MAIL FROM:<odd@sender.test>", f"RCPT TO:<{RECIPIENT}>"):
            assert client.command(line).code == 250
        assert client.command("DATA").code == 354
        client.write(one.octets + b"\r\n.\r\n")
        answer = client.read()
        assert f"{answer.code} {answer.text}".startswith(one.refusal + " "), answer
        assert client.command("QUIT").code == 221
    assert len(scene.hop.received) == before


@pytest.fixture(scope="module")
def key() -> Key:
    return make_key()


@pytest.mark.parametrize("canonical", CANONICAL)
@pytest.mark.parametrize("length", [False, True], ids=["whole", "l="])
def test_signatures_survive(scene: Scene, key: Key, canonical: str, length: bool) -> None:
    before = len(scene.hop.received)
    octets = sign(key, canonical, length=length)
    assert scene.send(octets).code == 250
    received = scene.taken(before)
    check(received, octets)
    assert verifies(key, received.octets)


def test_every_message_shows_its_id(scene: Scene) -> None:
    """The id of the reply is that of the Received line and of the log's events."""
    before = len(scene.hop.received)
    answer = scene.send(b"Subject: x\r\n\r\ntext\r\n")
    message_id = re.search(r"id ([0-9A-Za-z]+)", answer.text)
    assert message_id is not None
    assert b" id " + message_id[1].encode() + b"\r\n" in scene.taken(before).octets.replace(b";", b"\r\n")
    names = {event["event"] for event in scene.gateway.events() if event.get("id") == message_id[1]}
    assert {"accepted", "routed", "delivered"} <= names
