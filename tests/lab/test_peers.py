"""The lab itself: scripted and real peers do what the end-to-end tests believe of them."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import chasquid, postfix, swaks
from tests.lab.client import Answer, Client, send_once, stuff
from tests.lab.hop import Hop, Script
from tests.lab.maildir import wait_for
from tests.lab.world import World, loopback_world, namespace_world

MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\nhello \xe4\r\n.x\r\n..\r\n"


@pytest.fixture
def loopback() -> Iterator[World]:
    with loopback_world() as world:
        yield world


@pytest.fixture
def namespace() -> Iterator[World]:
    if reason := postfix.why_not():
        pytest.skip(reason)
    with namespace_world() as world:
        yield world


@pytest.mark.parametrize(
    ("octets", "wire"),
    [
        (b"", b".\r\n"),
        (b"x", b"x\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"a\n.b\r\n.c\r\n", b"a\n.b\r\n..c\r\n.\r\n"),
    ],
)
def test_dots_are_stuffed_exactly(octets: bytes, wire: bytes) -> None:
    assert stuff(octets) == wire


@pytest.mark.parametrize("octets", [b"", b".\r\n", b"\r\n", MESSAGE, b"..\r\n.\r\n" * 3, b"x" * 300_000 + b"\r\n"])
def test_the_hop_keeps_what_the_client_sends(loopback: World, octets: bytes) -> None:
    host = loopback.host("hop.test")
    with Hop(loopback, host) as hop:
        assert send_once(loopback, host, ("a@x.test", "b@y.test"), octets) == Answer(250, "2.0.0 taken")
        assert hop.wait()[0].octets == octets
        assert (hop.received[0].sender, hop.received[0].recipients) == ("a@x.test", ("b@y.test",))


def test_the_hop_says_what_its_script_says(loopback: World) -> None:
    host = loopback.host("hop.test")
    script = Script(recipients={"no@y.test": "550 5.1.1 nobody"}, dot="451 4.3.0 later", keywords=("SIZE 1000",))
    with Hop(loopback, host, script) as hop, Client(loopback, host) as client:
        assert client.ehlo() == ["SIZE 1000"]
        assert client.send("a@x.test", "no@y.test", b"") == Answer(550, "5.1.1 nobody")
        assert client.send("a@x.test", ["yes@y.test", "no@y.test"], MESSAGE).code == 550
        assert client.send("a@x.test", "yes@y.test", MESSAGE) == Answer(451, "4.3.0 later")
        assert (len(hop.received), hop.accepted) == (1, [])
        hop.say(dot="")
        client.command("MAIL FROM:<>")
        client.command("RCPT TO:<yes@y.test>")
        client.command("DATA")
        client.write(stuff(MESSAGE))
        assert client.closed()


def test_a_hop_goes_down_and_up(loopback: World) -> None:
    host = loopback.host("hop.test")
    waiting = threading.Event()
    with Hop(loopback, host) as hop:
        hop.down()
        with pytest.raises(ConnectionRefusedError):
            loopback.connect(host)
        hop.up()
        hop.say(before_dot=lambda: waiting.wait(10))
        waiting.set()
        assert send_once(loopback, host, ("a@x.test", "b@y.test"), MESSAGE).code == 250


@pytest.mark.postfix
def test_postfix_sends_by_mx_delivers_and_bounces(namespace: World) -> None:
    one, two = namespace.host("one.test", "sender.test"), namespace.host("two.test", "receiver.test")
    boxes = ["you@receiver.test", "late@receiver.test", "no@receiver.test"]
    with (
        postfix.Postfix(namespace, one, ["me@sender.test"]) as sender,
        postfix.Postfix(
            namespace,
            two,
            boxes,
            access={"no@receiver.test": "550 5.1.1 go away"},
            transport={"late@receiver.test": "bouncer:"},
        ) as receiver,
    ):
        text = b"From: me@sender.test\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <1@x>\n\nhi\n"
        sender.sendmail("me@sender.test", "you@receiver.test", text)
        assert receiver.mailbox("you@receiver.test").wait()[0].endswith(text)
        sender.sendmail("me@sender.test", "no@receiver.test", text)
        sender.wait_log(r"to=<no@receiver.test>.*status=bounced.*550 5\.1\.1 .*go away")
        sender.sendmail("me@sender.test", "late@receiver.test", text)
        bounces = sender.mailbox("me@sender.test").wait(2)
        assert any(b"from two.test" in bounce and b"the mailbox is gone" in bounce for bounce in bounces)
        sender.wait_empty()


@pytest.mark.postfix
def test_postfix_keeps_what_is_deferred(namespace: World) -> None:
    one = namespace.host("one.test", "sender.test")
    down = namespace.host("down.test", "down.test")
    with postfix.Postfix(namespace, one, ["me@sender.test"]) as sender:
        sender.sendmail("me@sender.test", "x@down.test", b"Subject: x\n\nhi\n")
        sender.wait_log(r"status=deferred .*Connection refused")
        assert [entry["sender"] for entry in sender.queue()] == ["me@sender.test"]
        with Hop(namespace, down) as hop:
            sender.flush()
            hop.wait()
        sender.wait_empty()


@pytest.mark.netns
def test_chasquid_delivers_and_refuses(namespace: World) -> None:
    if reason := chasquid.why_not():
        pytest.skip(reason)
    host, client = namespace.host("c.test", "receiver.test"), namespace.host("client.test", "sender.test")
    with chasquid.Chasquid(namespace, host, ["you@receiver.test"]) as server:
        refusal = send_once(namespace, host, ("a@sender.test", "no@receiver.test"), MESSAGE, client)
        assert (refusal.code, refusal.text[:5]) == (550, "5.1.1")
        assert send_once(namespace, host, ("a@sender.test", "you@receiver.test"), MESSAGE, client).code == 250
        assert server.mailbox("you@receiver.test").wait()[0].endswith(MESSAGE.replace(b"\r\n", b"\n"))


def test_swaks_sends(loopback: World) -> None:
    if reason := swaks.why_not():
        pytest.skip(reason)
    host = loopback.host("hop.test")
    with Hop(loopback, host, Script(recipients={"no@y.test": "550 5.1.1 nobody"})) as hop:
        assert swaks.swaks(loopback, host, "a@x.test", "b@y.test", "--body", "a body").status == 0
        assert b"a body" in hop.wait()[0].octets
        refusal = swaks.swaks(loopback, host, "a@x.test", "no@y.test")
        assert refusal.status == 24
        assert "<** 550 5.1.1 nobody" in refusal.text


_KILLED = """
import os, signal
from tests.lab.postfix import Postfix
from tests.lab.world import namespace_world
with namespace_world() as world, Postfix(world, world.host("one.test")) as server:
    print(world.folder, server.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.postfix
def test_nothing_stays_when_the_tests_are_killed(namespace: World) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder, pid = done.stdout.split()
    wait_for(lambda: not Path(folder).exists(), what=f"{folder} is still there")
    wait_for(lambda: folder not in _command_line(pid), what=f"Postfix {pid} still runs")


def _command_line(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
