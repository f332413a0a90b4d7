"""Two gateways in a row, each with a secret of its own: SRS becomes SRS1, bounces find their way, circles end."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.client import Answer, Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.world import Host, World, loopback_world

FIRST = "[first.test]\nme -> me@second.test\ncircle -> circle@second.test\n"
SECOND = "[second.test]\nme -> inbox@hop.test\ncircle -> circle@first.test\n"
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\nX-Fold: a\r\n\t b \r\n\r\n.\r\ntext \xe4\r\n"


@dataclass
class Scene:
    """The sender's own server, two gateways, the last hop."""

    world: World
    client: Host
    sender: Hop
    first: Gateway
    second: Gateway
    hop: Hop

    def send(self, gateway: Gateway, sender: str, recipient: str, octets: bytes = MESSAGE) -> Answer:
        """Send one message to a gateway."""
        with Client(self.world, gateway.host, self.client) as client:
            client.ehlo()
            return client.send(sender, recipient, octets, "BODY=8BITMIME")


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with loopback_world() as world:
        client, home = world.host("client.test"), world.host("mx.sender.test", "sender.test")
        one, two = world.host("mx.first.test", "first.test"), world.host("mx.second.test", "second.test")
        with (
            Hop(world, home) as sender,
            Hop(world, world.host("hop.test")) as hop,
            Gateway(world, one, FIRST) as first,
            Gateway(world, two, SECOND, secret="quite another secret") as second,
        ):
            yield Scene(world, client, sender, first, second, hop)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.sender.received.clear()
    everybody.hop.received.clear()
    return everybody


def test_a_bounce_goes_back_through_both(scene: Scene) -> None:
    assert scene.send(scene.first, "a@sender.test", "me@first.test").code == 250
    received = scene.hop.wait()[0]
    assert received.octets.endswith(MESSAGE)
    assert received.octets.count(b"\r\nReceived: ") == 2
    assert received.sender.startswith("SRS1=")
    assert received.sender.endswith("@fwd.second.test")
    bounce = b"Subject: bounce\r\n\r\ntext\r\n"
    assert scene.send(scene.second, "", received.sender, bounce).code == 250
    back = scene.sender.wait()[0]
    assert (back.sender, back.recipients) == ("", ("a@sender.test",))
    assert back.octets.endswith(bounce)


def test_the_first_ones_address_is_not_the_seconds(scene: Scene) -> None:
    """Each believes only what it signed itself."""
    address = scene.first.run("srs", "encode", "a@sender.test").output.split()[0]
    forged = address.partition("@")[0] + "@fwd.second.test"
    assert scene.send(scene.second, "", forged).code == 550
    assert scene.send(scene.first, "", address).code == 250


def test_a_circle_of_two_ends_in_the_session(scene: Scene) -> None:
    answer = scene.send(scene.first, "a@sender.test", "circle@first.test")
    assert (answer.code, answer.text[:5]) == (554, "5.4.6"), answer
    assert scene.sender.received == []
    assert scene.hop.received == []


def test_a_refusal_is_passed_through_both(scene: Scene) -> None:
    scene.hop.say(dot="550 5.7.1 the last one says no")
    try:
        answer = scene.send(scene.first, "a@sender.test", "me@first.test", MESSAGE + b"again\r\n")
    finally:
        scene.hop.say(dot="250 2.0.0 taken")
    assert (answer.code, answer.text[:5]) == (550, "5.7.1"), answer
    assert "the last one says no" in answer.text
