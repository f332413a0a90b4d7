"""Postfix with OpenDKIM and OpenDMARC as the inbox behind us: it refuses by DMARC, and takes what we forward.

The senders' domains want p=reject. What reaches the inbox is what its own programs find aligned: the sender's
signature, or ours where From had to be rewritten.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.auth.dkim import signer
from tests.corpus.signatures import by_dkimpy, by_ed25519, by_opendkim, records
from tests.lab import opendkim, opendmarc, postfix
from tests.lab.client import Answer, Client, send_once
from tests.lab.gateway import Gateway
from tests.lab.opendkim import OpenDkim
from tests.lab.opendmarc import OpenDmarc
from tests.lab.postfix import Postfix
from tests.lab.receiver import Published
from tests.lab.world import Host, World, namespace_world
from tests.rewrite.judges import ed25519, rsa

pytestmark = [pytest.mark.postfix, pytest.mark.netns]

RULES = "[forward.test]\nme -> you@receiver.test\n"
AUTHOR, OURS, THERE = "sender.test", "forward.test", "mx.receiver.test"
BY_DKIM, BY_DMARC = 8891, 8893
SMALL = signer.rsa_key(1024)


@dataclass
class Scene:
    """A sender whom SPF allows and one whom it does not, two gateways, and the receiver."""

    world: World
    sender: Host
    stranger: Host
    gateway: Gateway
    honest: Gateway  # never rewrites From
    receiver: Postfix

    def send(self, octets: bytes, source: Host | None = None, gateway: Gateway | None = None) -> Answer:
        with Client(self.world, (gateway or self.gateway).host, source or self.stranger) as client:
            client.ehlo()
            sender = f"me@{AUTHOR}" if source is self.sender else "me@stranger.test"
            return client.send(sender, "me@forward.test", octets, "BODY=8BITMIME")

    def arrived(self) -> tuple[str, str]:
        """Give From of the one message that came, and what the receiver's programs say of it."""
        (octets,) = self.receiver.mailbox("you@receiver.test").wait()
        self.receiver.forget_mail()
        head = octets.partition(b"\n\n")[0].decode() + "\n"
        said = re.findall(rf"(?m)^Authentication-Results: {re.escape(THERE)};.*\n(?:[ \t].*\n)*", head)
        (author,) = re.findall(r"(?m)^From: (.*)", head)
        return author, " ".join(" ".join(said).split())


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    if reason := postfix.why_not() or opendkim.why_not() or opendmarc.why_not():
        pytest.skip(reason)
    with namespace_world() as world, ExitStack() as running:
        published = Published(world)
        sender, stranger = world.host("mx.sender.test", AUTHOR), world.host("mx.stranger.test", "stranger.test")
        there = world.host(THERE, "receiver.test")
        for name, text in {
            **records(),
            f"small._domainkey.{AUTHOR}": SMALL.record,
            AUTHOR: f"v=spf1 ip4:{sender.address} -all",
            f"_dmarc.{AUTHOR}": "v=DMARC1; p=reject",
            f"_dmarc.{OURS}": "v=DMARC1; p=reject",
        }.items():
            published.add(name, text)
        gateways = [
            Gateway(world, world.host("mx.forward.test", OURS), RULES),
            Gateway(world, world.host("mx2.forward.test"), RULES, settings={"rewrite.from": "never"}),
        ]
        for gateway in gateways:
            published.give_keys(gateway, rsa("s1", OURS), ed25519("e1", OURS))
        milters = f"inet:127.0.0.1:{BY_DKIM}, inet:127.0.0.1:{BY_DMARC}"
        settings = {"smtpd_milters": milters, "milter_default_action": "tempfail"}
        receiver = Postfix(world, there, ["you@receiver.test"], settings=settings)
        for each in (
            OpenDkim(world, THERE, BY_DKIM, key_bits=2048),
            OpenDmarc(world, THERE, BY_DMARC),
            receiver,
            *gateways,
        ):
            running.enter_context(each)
        yield Scene(world, sender, stranger, gateways[0], gateways[1], receiver)


def letter(subject: str) -> bytes:
    return (
        f"From: Ann <me@{AUTHOR}>\r\nTo: me@forward.test\r\nSubject: {subject}\r\nMessage-ID: <{subject}@{AUTHOR}>\r\n"
        "Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nX-Fold: a\r\n\t b\r\n\r\nText  ü\t here \r\n.\r\n..\r\n\r\n"
    ).encode()


@pytest.mark.parametrize("canonical", ["simple/simple", "relaxed/relaxed"])
@pytest.mark.parametrize("sign", [by_dkimpy, by_opendkim])
def test_what_its_author_has_signed_is_taken_as_it_is(scene: Scene, sign: object, canonical: str) -> None:
    assert callable(sign)
    answer = scene.send(sign(letter("signed"), canonical))
    assert answer.code == 250, answer
    author, said = scene.arrived()
    assert author == f"Ann <me@{AUTHOR}>"
    assert f"dmarc=pass (p=reject dis=none) header.from={AUTHOR}" in said
    assert len(re.findall(r"dkim=pass", said)) >= 2, said  # the author's, and ours


def test_what_only_spf_carried_is_taken_with_a_from_of_ours(scene: Scene) -> None:
    answer = scene.send(letter("by-spf"), scene.sender)
    assert answer.code == 250, answer
    author, said = scene.arrived()
    assert author == '"Ann via forward.test" <me@forward.test>'
    assert f"dmarc=pass (p=reject dis=none) header.from={OURS}" in said


def test_without_that_it_is_refused_there_and_the_sender_told(scene: Scene) -> None:
    answer = scene.send(letter("not-rewritten"), scene.sender, scene.honest)
    assert answer.code == 550, answer
    assert f"rejected by DMARC policy for {AUTHOR}" in answer.text
    assert scene.receiver.mailbox("you@receiver.test").messages() == []


def test_a_signature_by_ed25519_is_taken_as_it_is(scene: Scene) -> None:
    assert scene.send(by_ed25519(letter("edwards"), "relaxed/relaxed")).code == 250
    author, said = scene.arrived()
    assert author == f"Ann <me@{AUTHOR}>"
    assert f"dmarc=pass (p=reject dis=none) header.from={AUTHOR}" in said


def test_what_is_weaker_than_it_wants_is_offered_once_more(scene: Scene) -> None:
    """A key of 1024 bits is good here and not there: what DMARC refuses is taken with a From of ours."""
    answer = scene.send(signer.sign(letter("small"), SMALL, s="small", t=None))
    assert answer.code == 250, answer
    assert scene.gateway.events("foreseen")[-1]["dmarc"] == "pass"
    assert len(scene.gateway.wait_event("rewritten")) == 1
    author, said = scene.arrived()
    assert author == '"Ann via forward.test" <me@forward.test>'
    assert f"dmarc=pass (p=reject dis=none) header.from={OURS}" in said


def test_forged_mail_gets_neither_through_us_nor_around(scene: Scene) -> None:
    assert scene.send(letter("forged")).code == 550
    answer = send_once(
        scene.world, scene.receiver.host, ("me@stranger.test", "you@receiver.test"), letter("around"), scene.stranger
    )
    assert answer.code == 550, answer
    assert "DMARC" in answer.text
    assert scene.receiver.mailbox("you@receiver.test").messages() == []
