"""One message for two aliases of which one can have a From of ours: each gets what is right for it, once.

What the next hops make of the copies is said by dkimpy and OpenDMARC's library (`tests.lab.receiver`), not by us.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.lab.client import Answer, Client
from tests.lab.gateway import Gateway, Value
from tests.lab.hop import Hop
from tests.lab.maildir import wait_for
from tests.lab.receiver import Published, author, dmarc
from tests.lab.world import Host, World
from tests.rewrite.judges import rsa

RULES = "[forward.test]\nme -> box@one.test\n[keyless.test]\nme -> box@two.test\n"
TO = ("me@keyless.test", "me@forward.test")
MESSAGE = (
    b"From: Ann <ann@sender.test>\r\nTo: both\r\nSubject: who\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <1@sender.test>\r\n\r\nText \r\n.dot\r\n"
)


@dataclass
class Scene:
    """A sender whose mail passes by SPF alone, under p=reject, and a gateway with a key for one of two domains."""

    sender: Host
    gateway: Gateway
    one: Hop
    two: Hop
    published: Published

    def send(self, octets: bytes) -> Answer:
        with Client(self.gateway.world, self.gateway.host, self.sender) as client:
            client.ehlo(self.sender.name)
            return client.send("ann@sender.test", TO, octets)


@contextmanager
def scene(world: World, settings: dict[str, Value]) -> Iterator[Scene]:
    published = Published(world)
    sender = world.host("mx.sender.test", "sender.test")
    published.add("sender.test", f"v=spf1 ip4:{sender.address} -all")
    published.add("_dmarc.sender.test", "v=DMARC1; p=reject")
    published.add("_dmarc.forward.test", "v=DMARC1; p=reject; aspf=s")
    gateway = Gateway(world, world.host("mx.forward.test"), RULES, settings=settings)
    published.give_keys(gateway, rsa("s1", "forward.test"))
    with Hop(world, world.host("one.test")) as one, Hop(world, world.host("two.test")) as two, gateway:
        yield Scene(sender, gateway, one, two, published)


@pytest.mark.parametrize("mode", ["cutthrough", "queue"])
def test_each_gets_its_own(loopback: World, mode: str) -> None:
    with scene(loopback, {"delivery.mode": mode}) as stage:
        assert stage.send(MESSAGE).code == 250
        (ours,), (untouched,) = stage.one.wait(), stage.two.wait()
        assert author(ours.octets) == "forward.test"
        assert dmarc(ours.octets, ours.sender, stage.published) == "pass"
        assert ours.octets.endswith(MESSAGE.partition(b"\r\n")[2])
        assert untouched.octets.endswith(b"\r\n" + MESSAGE)
        assert b"X-Original-From" not in untouched.octets
        assert dmarc(untouched.octets, untouched.sender, stage.published) == "fail"
        foreseen = {event["to"]: (event["dmarc"], event["action"]) for event in stage.gateway.events("foreseen")}
        assert foreseen == {"me@keyless.test": ("fail", "forward"), "me@forward.test": ("fail", "rewrite")}
        delivered = wait_for(lambda: found if len(found := stage.gateway.events("delivered")) == 2 else [], what="two")
        (split,) = stage.gateway.events("rewritten")
        assert {event["id"] for event in delivered} == {split["id"], split["again"]}


def test_one_that_is_refused_does_not_stop_the_other(loopback: World) -> None:
    with scene(loopback, {"rewrite.otherwise": "reject"}) as stage, Hop(loopback, stage.sender) as home:
        answer = stage.send(MESSAGE)
        assert answer.code == 250, answer
        (ours,) = stage.one.wait()
        assert author(ours.octets) == "forward.test"
        (told,) = home.wait()
        assert b"me@keyless.test" in told.octets and b"Status: 5.7.1" in told.octets
        assert stage.two.received == []
