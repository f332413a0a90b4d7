"""Dialogues with the real gateway: what swaks and a plain client are told."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import swaks
from tests.lab.client import Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.world import Host, World, loopback_world

RULES = """\
[forward.test]
me    -> inbox@hop.test
grüße -> inbox@hop.test
gone  -> reject "550 5.1.6 This mailbox has moved away"
later -> defer "450 4.2.1 Try later"
black -> discard
[bücher.test]
info  -> inbox@hop.test
"""


@dataclass
class Scene:
    """A client's host, the gateway and a next hop."""

    world: World
    client: Host
    gateway: Gateway
    hop: Hop

    def swaks(self, recipient: str, *options: str) -> swaks.Transcript:
        """Run swaks against the gateway."""
        if reason := swaks.why_not():
            pytest.skip(reason)
        return swaks.swaks(self.world, self.gateway.host, "a@sender.test", recipient, *options)

    def connect(self) -> Client:
        """Connect and say EHLO."""
        client = Client(self.world, self.gateway.host, self.client)
        client.ehlo()
        return client


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with loopback_world() as world:
        client, gate = world.host("client.test", "sender.test"), world.host("mx.forward.test")
        with Hop(world, world.host("hop.test")) as hop, Gateway(world, gate, RULES) as gateway:
            yield Scene(world, client, gateway, hop)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.hop.received.clear()
    return everybody


def test_swaks_delivers(scene: Scene) -> None:
    done = scene.swaks("me@forward.test", "--body", "from swaks")
    assert done.status == 0, done.text
    assert re.search(r"<-  250 2\.0\.0 .*id ", done.text)
    assert b"from swaks" in scene.hop.wait()[0].octets


@pytest.mark.parametrize("options", [["--pipeline"], ["--protocol", "SMTP"], ["--protocol", "ESMTP"]], ids=" ".join)
def test_swaks_delivers_in_every_way(scene: Scene, options: list[str]) -> None:
    done = scene.swaks("me@forward.test", *options)
    assert done.status == 0, done.text
    assert len(scene.hop.wait()) == 1


@pytest.mark.parametrize(
    ("recipient", "reply"),
    [
        ("nobody@forward.test", "550 5.1.1"),
        ("me@elsewhere.test", "550 5.7"),
        ("gone@forward.test", "550 5.1.6 This mailbox has moved away"),
        ("later@forward.test", "450 4.2.1 Try later"),
    ],
)
def test_swaks_is_told_why_not(scene: Scene, recipient: str, reply: str) -> None:
    done = scene.swaks(recipient)
    assert done.status == 24, done.text
    assert f"<** {reply}" in done.text
    assert scene.hop.received == []


def test_discarded_mail_is_accepted_and_goes_nowhere(scene: Scene) -> None:
    assert scene.swaks("black@forward.test").status == 0
    assert scene.hop.received == []


def test_swaks_by_tls(scene: Scene) -> None:
    if reason := swaks.why_no_tls():
        pytest.skip(reason)
    done = scene.swaks("me@forward.test", "--tls")
    assert done.status == 0, done.text
    assert b"with ESMTPS" in scene.hop.wait()[0].octets


def test_start_tls(scene: Scene) -> None:
    with scene.connect() as client:
        assert "STARTTLS" in client.ehlo()
        client.start_tls()
        assert client.command("MAIL FROM:<a@sender.test>").code == 503  # EHLO has to be said again
        assert "STARTTLS" not in client.ehlo()
        assert client.command("STARTTLS").code == 503
        assert client.send("a@sender.test", "me@forward.test", b"Subject: x\r\n\r\nsecret\r\n").code == 250
    octets = scene.hop.wait()[0].octets
    assert re.search(rb"by mx\.forward\.test with ESMTPS \(TLSv1\.[23] \S+\) id ", octets), octets


@pytest.mark.parametrize("said", [b"", b"EHLO in clear text\r\n" * 3], ids=["nothing", "no-tls"])
def test_a_handshake_that_fails_is_told_with_client_and_reason(scene: Scene, said: bytes) -> None:
    before = len(scene.gateway.events("reject"))
    with scene.connect() as client:
        assert client.command("STARTTLS").code == 220
        client.write(said)
    event = scene.gateway.wait_event("reject", before + 1)[-1]
    assert event["stage"] == "tls"
    assert event["text"] != ""
    assert "client" in event


def test_what_was_sent_before_tls_is_forgotten(scene: Scene) -> None:
    with scene.connect() as client:
        client.write(b"STARTTLS\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<me@forward.test>\r\n")
        assert client.read().code == 220
    with scene.connect() as client:
        assert client.send("a@sender.test", "me@forward.test", b"Subject: x\r\n\r\n").code == 250
    assert [message.sender.rpartition("=")[2].split("@")[0] for message in scene.hop.wait()] == ["a"]


def test_smtputf8(scene: Scene) -> None:
    with scene.connect() as client:
        assert "SMTPUTF8" in client.ehlo()
        octets = "From: jürgen@bücher.test\r\nSubject: Grüße\r\n\r\nx\r\n".encode()
        answer = client.send("jürgen@sender.test", "grüße@forward.test", octets, "BODY=8BITMIME SMTPUTF8")
        assert answer.code == 250, answer
    received = scene.hop.wait()[0]
    assert "SMTPUTF8" in received.mail
    assert "jürgen@fwd.forward.test" in received.sender
    assert received.octets.endswith(octets)
    assert b"with UTF8SMTP id " in received.octets


def test_utf8_addresses_need_smtputf8(scene: Scene) -> None:
    with scene.connect() as client:
        assert client.command("MAIL FROM:<jürgen@sender.test>").code == 553
        assert client.command("MAIL FROM:<a@sender.test>").code == 250
        assert client.command("RCPT TO:<grüße@forward.test>").code == 553


@pytest.mark.parametrize("domain", ["xn--bcher-kva.test", "XN--BCHER-KVA.test", "bücher.test", "Bücher.test"])
def test_international_domains_have_two_spellings(scene: Scene, domain: str) -> None:
    with scene.connect() as client:
        answer = client.send("a@sender.test", f"info@{domain}", b"Subject: x\r\n\r\n", "SMTPUTF8")
        assert answer.code == 250, answer
    assert len(scene.hop.wait()) == 1


def test_many_messages_in_one_connection(scene: Scene) -> None:
    with scene.connect() as client:
        for number in range(20):
            octets = f"Subject: {number}\r\n\r\n.{number}\r\n".encode()
            assert client.send("a@sender.test", "me@forward.test", octets).code == 250
            assert scene.hop.accepted[-1].octets.endswith(octets)


def test_pipelined_in_one_segment(scene: Scene) -> None:
    with scene.connect() as client:
        client.write(
            b"MAIL FROM:<a@sender.test>\r\nRCPT TO:<me@forward.test>\r\nRCPT TO:<nobody@forward.test>\r\nDATA\r\n"
        )
        assert [client.read().code for _ in range(4)] == [250, 250, 550, 354]
        client.write(b"Subject: x\r\n\r\n.\r\nMAIL FROM:<b@sender.test>\r\nQUIT\r\n")
        assert [client.read().code for _ in range(3)] == [250, 250, 221]
        assert client.closed()
    assert len(scene.hop.wait()) == 1


def test_a_null_sender_stays_null(scene: Scene) -> None:
    with scene.connect() as client:
        assert client.send("", "me@forward.test", b"Subject: bounce\r\n\r\n").code == 250
    assert scene.hop.wait()[0].sender == ""


def test_one_event_per_stage_with_the_id(scene: Scene) -> None:
    with scene.connect() as client:
        answer = client.send("a@sender.test", "me@forward.test", b"Subject: x\r\n\r\n")
    message_id = answer.text.rpartition("id ")[2]
    names = [event["event"] for event in scene.gateway.events() if event.get("id") == message_id]
    for name in ("accepted", "routed", "delivered"):
        assert names.count(name) == 1, names
