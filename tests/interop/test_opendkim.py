"""OpenDKIM on both sides: what it signs for a real Postfix we find good, and what we forward it finds good still."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.corpus.signed import CANONICAL, Key, make_key
from tests.lab import opendkim, postfix
from tests.lab.client import send_once
from tests.lab.findings import Findings, parse
from tests.lab.gateway import Gateway
from tests.lab.opendkim import OpenDkim, milter_settings
from tests.lab.postfix import Postfix
from tests.lab.world import World, namespace_world

pytestmark = [pytest.mark.postfix, pytest.mark.netns]

SENDER, SIGNER_PORT = "mx.sender.test", 8891
RULES = "[forward.test]\nme -> you@receiver.test\n"
MESSAGE = (
    "From: Me <me@sender.test>\nTo: me@forward.test\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
    "Message-ID: <1@sender.test>\nSubject: Grüße\nX-Fold: a\n\t b\n\nText  ü\t here \n.\n..\nFrom here  \n\n\n"
).encode()


@dataclass
class Scene:
    """The gateway, and the receiver whose milter checks what we forward."""

    world: World
    key: Key
    sender: Postfix
    gateway: Gateway
    receiver: Postfix

    def signer(self, canonical: str) -> OpenDkim:
        """Give the milter that the sender asks, signing in this way."""
        signing = ("sender.test", "lab", self.key.private)
        return OpenDkim(self.world, SENDER, SIGNER_PORT, signing=signing, canonical=canonical)

    def arrived(self) -> tuple[bytes, Findings, str]:
        """Give the one message that came, what we say of it, and what the receiver's OpenDKIM says."""
        (octets,) = self.receiver.mailbox("you@receiver.test").wait()
        self.receiver.forget_mail()
        head = octets.partition(b"\n\n")[0].decode() + "\n"
        fields = re.findall(r"(?m)^Authentication-Results: .*\n(?:[ \t].*\n)*", head)
        (ours,) = [each for each in fields if "mx.forward.test;" in each]
        (theirs,) = [each for each in fields if "mx.receiver.test;" in each]
        return octets, parse(ours.replace("\n", "\r\n")), theirs


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if reason := postfix.why_not() or opendkim.why_not():
        pytest.skip(reason)
    with namespace_world() as world, ExitStack() as running:
        key = make_key()
        world.dns.add(key.name, "TXT", key.record)
        world.dns.add("_dmarc.sender.test", "TXT", "v=DMARC1; p=reject")
        gate, there = world.host("mx.forward.test", "forward.test"), world.host("mx.receiver.test", "receiver.test")
        running.enter_context(OpenDkim(world, there.name, SIGNER_PORT + 1))
        receiver = Postfix(world, there, ["you@receiver.test"], settings=milter_settings(SIGNER_PORT + 1))
        sender = Postfix(world, world.host(SENDER, "sender.test"), settings=milter_settings(SIGNER_PORT))
        gateway = Gateway(world, gate, RULES)
        for server in (sender, gateway, receiver):
            running.enter_context(server)
        yield Scene(world, key, sender, gateway, receiver)


@pytest.mark.parametrize("canonical", CANONICAL)
def test_signed_forwarded_verified(scene: Scene, canonical: str) -> None:
    with scene.signer(canonical):
        scene.sender.sendmail("me@sender.test", "me@forward.test", MESSAGE)
        octets, ours, theirs = scene.arrived()
    clause = ours.one("dkim")
    assert clause.result == "pass"
    assert (clause.properties["header.d"], clause.properties["header.s"]) == ("sender.test", "lab")
    assert f"c={canonical};".encode() in octets
    assert ours.result("dmarc") == "pass"
    assert "dkim=pass" in theirs

    changed = octets[octets.index(b"DKIM-Signature:") :].replace(b"Text", b"Test").replace(b"\n", b"\r\n")
    stranger = scene.world.host(f"stranger-{canonical.replace('/', '-')}.test")
    answer = send_once(scene.world, scene.gateway.host, ("a@stranger.test", "me@forward.test"), changed, stranger)
    assert (answer.code, "sender.test" in answer.text) == (550, True), answer
    assert "the body was changed" in str(scene.gateway.events("authenticated")[-1]["dkim"])
