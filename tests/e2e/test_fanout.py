"""One alias, two real servers: Postfix and chasquid each get the message once, by TLS where they offer it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import chasquid, postfix
from tests.lab.chasquid import Chasquid
from tests.lab.client import Answer, Client, send_once
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.postfix import Postfix
from tests.lab.world import Host, World, namespace_world

pytestmark = [pytest.mark.postfix, pytest.mark.netns]

RULES = """\
[forward.test]
team, crew -> one@postfix.test, two@chasquid.test
half       -> one@postfix.test, nobody@chasquid.test
lone       -> two@chasquid.test
"""
MESSAGE = "From: me@sender.test\r\nSubject: Grüße\r\n\r\n.\r\nbody ü\r\n".encode()
STORED = MESSAGE.replace(b"\r\n", b"\n")


@dataclass
class Scene:
    """A sender's address, the gateway and two receivers."""

    world: World
    client: Host
    gateway: Gateway
    one: Postfix
    two: Chasquid

    def send(self, *recipients: str) -> Answer:
        """Send to recipients of ours."""
        with Client(self.world, self.gateway.host, self.client) as client:
            client.ehlo()
            return client.send("me@sender.test", recipients, MESSAGE, "BODY=8BITMIME")

    def counts(self) -> tuple[int, int]:
        """Give how many messages each receiver has."""
        return len(self.one.mailbox("one@postfix.test").messages()), len(
            self.two.mailbox("two@chasquid.test").messages()
        )


@pytest.fixture
def scene() -> Iterator[Scene]:
    if reason := postfix.why_not() or chasquid.why_not():
        pytest.skip(reason)
    with namespace_world() as world:
        client = world.host("client.test", "sender.test")
        gate = world.host("mx.forward.test", "forward.test")
        first, second = world.host("mx.postfix.test", "postfix.test"), world.host("mx.chasquid.test", "chasquid.test")
        with (
            Postfix(world, first, ["one@postfix.test"]) as one,
            Chasquid(world, second, ["two@chasquid.test"]) as two,
            Gateway(world, gate, RULES) as gateway,
        ):
            yield Scene(world, client, gateway, one, two)


def test_both_destinations_get_it_once(scene: Scene) -> None:
    assert scene.send("team@forward.test").code == 250
    assert scene.one.mailbox("one@postfix.test").wait()[0].endswith(STORED)
    stored = scene.two.mailbox("two@chasquid.test").wait()[0]
    assert stored.endswith(STORED)
    assert b"over TLS" in stored or b"TLS" in stored.partition(b"Delivered-To:")[0], stored
    scene.one.wait_empty()
    assert scene.counts() == (1, 1)


def test_two_aliases_with_the_same_destinations_make_one_copy_each(scene: Scene) -> None:
    assert scene.send("team@forward.test", "crew@forward.test").code == 250
    scene.one.mailbox("one@postfix.test").wait()
    scene.two.mailbox("two@chasquid.test").wait()
    scene.one.wait_empty()
    assert scene.counts() == (1, 1)


def test_a_refusal_of_one_destination_is_told_to_a_sender_who_is_known(scene: Scene) -> None:
    scene.world.dns.replace("sender.test", "TXT", f"v=spf1 ip4:{scene.client.address} -all")
    with Hop(scene.world, scene.client) as theirs:
        answer = scene.send("half@forward.test")
        assert answer.code == 250, answer
        theirs.wait()
    (bounce,) = theirs.accepted
    assert (bounce.sender, bounce.recipients) == ("", ("me@sender.test",))
    assert b"Final-Recipient: rfc822; half@forward.test" in bounce.octets
    assert b"mx.chasquid.test" in bounce.octets
    assert scene.one.mailbox("one@postfix.test").wait()[0].endswith(STORED)
    scene.one.wait_empty()
    assert scene.counts() == (1, 0)


def test_a_refusal_of_one_destination_is_held_where_nobody_may_be_told(scene: Scene) -> None:
    answer = scene.send("half@forward.test")
    assert answer.code == 250, answer
    scene.one.mailbox("one@postfix.test").wait()
    (held,) = scene.gateway.wait_event("held")
    assert (held["to"], held["destination"]) == ("half@forward.test", "nobody@chasquid.test")
    assert scene.counts() == (1, 0)


def test_chasquid_believes_our_spf(scene: Scene) -> None:
    """The rewritten sender's domain names our address, so SPF passes behind us."""
    scene.world.dns.replace(scene.gateway.srs_domain, "TXT", f"v=spf1 ip4:{scene.gateway.host.address} -all")
    scene.world.dns.replace("sender.test", "TXT", f"v=spf1 ip4:{scene.client.address} -all")
    answer = send_once(scene.world, scene.gateway.host, ("me@sender.test", "lone@forward.test"), MESSAGE, scene.client)
    assert answer.code == 250, answer
    assert scene.two.mailbox("two@chasquid.test").wait()[0].startswith(b"Received-SPF: pass")
