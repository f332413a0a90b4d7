"""A real Postfix sends by MX to the gateway, which forwards by MX to another real Postfix.

Everything uses port 25 and real names in a namespace. What the receiver says is what the sender's queue sees; what the
receiver says too late goes back to the true sender by the rewritten address; nobody is told anything twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.corpus.signed import CANONICAL, Key, make_key, sign, verifies
from tests.lab import postfix
from tests.lab.client import Client, send_once
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.postfix import Postfix
from tests.lab.world import Host, World, namespace_world

pytestmark = [pytest.mark.postfix, pytest.mark.netns]

ME = "me@sender.test"
RULES = """\
[forward.test]
me, signed, plain -> you@receiver.test
no      -> no@receiver.test
busy    -> busy@receiver.test
late    -> late@receiver.test
down    -> x@down.test
itself  -> itself@back.test
circle  -> circle@receiver.test
"""
MESSAGE = (
    "From: Me <me@sender.test>\nTo: someone@forward.test\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
    "Message-ID: <{}@sender.test>\nSubject: Grüße\nX-Fold: a\n\t b  \n\nText ü\n.\n..\nFrom here  \n\n"
)


@dataclass
class Scene:
    """Sender, gateway and receiver, each with its own address."""

    world: World
    sender: Postfix
    gateway: Gateway
    receiver: Postfix
    stranger: Host
    down: Host

    def clear(self) -> None:
        """Forget all mail of earlier tests."""
        for server in (self.sender, self.receiver):
            server.drop()
            server.forget_mail()

    def settled(self) -> None:
        """Wait until no queue has anything left."""
        self.sender.wait_empty()
        self.receiver.wait_empty()
        self.sender.wait_empty()


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    if reason := postfix.why_not():
        pytest.skip(reason)
    with namespace_world() as world:
        a, b = world.host("mx.sender.test", "sender.test"), world.host("mx.receiver.test", "receiver.test")
        gate, stranger = world.host("mx.forward.test", "forward.test", "back.test"), world.host("stranger.test")
        down = world.host("mx.down.test", "down.test")
        boxes = [f"{name}@receiver.test" for name in ("you", "no", "busy", "late")]
        circle = {"virtual_alias_maps": "inline:{ {circle@receiver.test=circle@forward.test} }"}
        access = {"no@receiver.test": "550 5.7.17 go away", "busy@receiver.test": "450 4.2.1 come later"}
        with (
            Postfix(world, a, [ME]) as sender,
            Postfix(
                world, b, boxes, access=access, transport={"late@receiver.test": "bouncer:"}, settings=circle
            ) as receiver,
            Gateway(world, gate, RULES) as gateway,
        ):
            yield Scene(world, sender, gateway, receiver, stranger, down)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.clear()
    return everybody


@pytest.fixture(scope="module")
def key() -> Key:
    return make_key()


def test_the_same_octets_arrive(scene: Scene) -> None:
    text = MESSAGE.format("octets").encode()
    scene.sender.sendmail(ME, "me@forward.test", text)
    stored = scene.receiver.mailbox("you@receiver.test").wait()[0]
    assert stored.endswith(text)
    received = re.findall(rb"^Received: (?:from|by) (\S+)", stored, re.MULTILINE)
    assert received == [b"mx.forward.test", b"mx.sender.test", b"mx.sender.test"], stored
    assert re.search(rb"by mx\.forward\.test with UTF8SMTPS \(TLSv1\.[23] ", stored), "Postfix takes our STARTTLS"
    assert b"(mx.sender.test [" in stored, "the name of the sender was looked up both ways"
    scene.sender.wait_log(r"to=<me@forward\.test>, relay=mx\.forward\.test\[.*dsn=2\.0\.0, status=sent \(250 2\.0\.0 ")
    scene.settled()
    assert len(scene.receiver.mailbox("you@receiver.test").messages()) == 1


def test_many_messages_arrive_once_each(scene: Scene) -> None:
    numbers = [f"many{number}" for number in range(30)]
    for number in numbers:
        scene.sender.sendmail(ME, ["me@forward.test", "nobody@forward.test"], MESSAGE.format(number).encode())
    scene.receiver.mailbox("you@receiver.test").wait(len(numbers))
    scene.sender.mailbox(ME).wait(len(numbers))  # a bounce of the sender's own for each unknown recipient
    scene.settled()
    stored = scene.receiver.mailbox("you@receiver.test").messages()
    assert sorted(re.findall(rb"Message-ID: <(many\d+)@", b"".join(stored))) == sorted(n.encode() for n in numbers)
    assert len(scene.sender.mailbox(ME).messages()) == len(numbers)


def test_the_sender_is_rewritten_and_reversed(scene: Scene) -> None:
    scene.sender.sendmail(ME, "plain@forward.test", MESSAGE.format("srs").encode())
    stored = scene.receiver.mailbox("you@receiver.test").wait()[0]
    path = re.match(rb"Return-Path: <(SRS0=[^>]+@fwd\.forward\.test)>\n", stored)
    assert path is not None, stored
    assert scene.gateway.run("srs", "decode", path[1].decode()).output.split()[0] == ME


@pytest.mark.parametrize("canonical", CANONICAL)
def test_the_signature_still_verifies(scene: Scene, key: Key, canonical: str) -> None:
    signed = sign(key, canonical).replace(b"\r\n", b"\n")
    scene.sender.sendmail(ME, "signed@forward.test", signed)
    stored = scene.receiver.mailbox("you@receiver.test").wait()[0]
    assert stored.endswith(signed)
    assert verifies(key, stored.replace(b"\n", b"\r\n"))


def test_a_refusal_of_the_receiver_reaches_the_sender(scene: Scene) -> None:
    scene.sender.sendmail(ME, "no@forward.test", MESSAGE.format("refused").encode())
    scene.sender.wait_log(
        r"to=<no@forward\.test>, relay=mx\.forward\.test\["
        r".*dsn=5\.7\.17, status=bounced .*said: 550[ -]5\.7\.17 .*go away"
    )
    bounce = scene.sender.mailbox(ME).wait()[0].replace(b"\n    ", b" ")
    assert b"550 5.7.17" in bounce
    assert b"go away" in bounce
    scene.settled()
    assert len(scene.sender.mailbox(ME).messages()) == 1
    assert b"Received: by mx.sender.test (Postfix)" in bounce, "the bounce is the sender's own"


def test_a_temporary_refusal_stays_with_the_sender(scene: Scene) -> None:
    scene.sender.sendmail(ME, "busy@forward.test", MESSAGE.format("busy").encode())
    scene.sender.wait_log(r"to=<busy@forward\.test>.*dsn=4\.2\.1, status=deferred .*said: 451[ -]4\.2\.1 .*come later")
    assert [entry["sender"] for entry in scene.sender.queue()] == [ME]
    assert scene.sender.mailbox(ME).messages() == []


def test_a_late_bounce_goes_back_to_the_true_sender(scene: Scene) -> None:
    scene.sender.sendmail(ME, "late@forward.test", MESSAGE.format("late").encode())
    bounce = scene.sender.mailbox(ME).wait()[0]
    assert bounce.startswith(b"Return-Path: <>\n")
    assert b"Received: from mx.forward.test" in bounce
    assert b"the mailbox is gone" in bounce
    assert b"for <SRS0=" in bounce
    scene.settled()
    assert len(scene.sender.mailbox(ME).messages()) == 1


@pytest.mark.parametrize("change", ["tag", "day", "local", "domain", "short"])
def test_a_forged_bounce_is_refused(scene: Scene, change: str) -> None:
    made = scene.gateway.run("srs", "encode", ME).output.strip()
    genuine, _, domain = made.rpartition("@")
    kind, tag, day, host, local = genuine.split("=")
    forged = {
        "tag": f"{kind}={_turn(tag)}={day}={host}={local}",
        "day": f"{kind}={tag}={_turn(day)}={host}={local}",
        "local": f"{kind}={tag}={day}={host}=you",
        "domain": f"{kind}={tag}={day}=receiver.test={local}",
        "short": f"{kind}={tag[:4]}={day}={host}={local}",
    }[change]
    with Client(scene.world, scene.gateway.host, scene.stranger) as client:
        client.ehlo()
        assert client.command("MAIL FROM:<>").code == 250
        assert client.command(f"RCPT TO:<{forged}@{domain}>").code == 550
        assert client.command(f"RCPT TO:<{genuine}@{domain}>").code == 250


def _turn(text: str) -> str:
    """Give another text of the same alphabet."""
    return ("B" if text[0] == "A" else "A") + text[1:]


def test_the_unknown_are_refused_at_rcpt_and_nobody_is_told_twice(scene: Scene) -> None:
    attempts = len(scene.gateway.events("attempt"))
    scene.sender.sendmail(ME, "nobody@forward.test", MESSAGE.format("nobody").encode())
    scene.sender.wait_log(r"to=<nobody@forward\.test>.*dsn=5\.1\.1, status=bounced .*\(in reply to RCPT TO command\)")
    scene.sender.mailbox(ME).wait()
    scene.settled()
    assert len(scene.sender.mailbox(ME).messages()) == 1
    assert len(scene.gateway.events("attempt")) == attempts, "the gateway sent nothing"
    assert "nobody@forward.test" in str(scene.gateway.events("reject")[-1])


def test_strangers_cannot_relay(scene: Scene) -> None:
    answer = send_once(scene.world, scene.gateway.host, (ME, "you@receiver.test"), b"x\r\n", scene.stranger)
    assert (answer.code, answer.text[:3]) == (550, "5.7")


def test_mail_that_would_come_back_to_us_is_a_loop(scene: Scene) -> None:
    scene.sender.sendmail(ME, "itself@forward.test", MESSAGE.format("itself").encode())
    scene.sender.wait_log(r"to=<itself@forward\.test>.*dsn=5\.4\.6, status=bounced .*554[ -]5\.4\.6")
    scene.settled()
    assert len(scene.sender.mailbox(ME).messages()) == 1


def test_mail_that_does_come_back_ends_with_one_bounce(scene: Scene) -> None:
    """The receiver forwards to us again: our mark in the message ends it, and the true sender gets one bounce."""
    scene.sender.sendmail(ME, "circle@forward.test", MESSAGE.format("circle").encode())
    scene.receiver.wait_log(r"to=<circle@forward\.test>.*dsn=5\.4\.6, status=bounced .*554[ -]5\.4\.6")
    bounce = scene.sender.mailbox(ME).wait()[0]
    assert b"5.4.6" in bounce
    scene.settled()
    assert len(scene.sender.mailbox(ME).messages()) == 1


def test_a_receiver_that_is_down_gets_it_later(scene: Scene) -> None:
    scene.sender.sendmail(ME, "down@forward.test", MESSAGE.format("down").encode())
    scene.sender.wait_log(r"to=<down@forward\.test>.*status=deferred .*said: 451")
    assert len(scene.sender.queue()) == 1
    with Hop(scene.world, scene.down) as hop:
        scene.sender.flush()
        hop.wait()
        scene.sender.wait_empty()
        assert len(hop.accepted) == 1
        assert hop.accepted[0].octets.endswith(MESSAGE.format("down").encode().replace(b"\n", b"\r\n"))
    assert scene.sender.mailbox(ME).messages() == []
