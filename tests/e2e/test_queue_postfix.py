"""A real Postfix sends, a real Postfix receives, and the receiver is down, stopped, slow, greylisting or full.

Each for a sender whose SPF passes, whose mail we take, and for one without, whose Postfix keeps and retries it. Either
way exactly one copy arrives, octet for octet, and no queue has anything left.
"""

import contextlib
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from forwarder.ops.control import call
from tests.lab import postfix
from tests.lab.gateway import Gateway, Value
from tests.lab.maildir import wait_for
from tests.lab.postfix import Postfix
from tests.lab.world import Host, World, namespace_world

pytestmark = [pytest.mark.postfix, pytest.mark.netns]

RULES = "[forward.test]\nbox -> box@receiver.test\nchoosy -> box@choosy.test\ncut -> box@cut.test\n"
GREYLISTED = "DEFER_IF_PERMIT Greylisted, come back later"
LATER = "451 4.3.0 not now"
_NUMBERS = count()
_END = b"\r\n.\r\n"


class Sender(Enum):
    """Whose mail we take and whose we do not."""

    KNOWN = "me@known.test"
    STRANGER = "me@stranger.test"


class Policy:
    """A policy server (SMTPD_POLICY_README): gives its answers one after the other, and DUNNO when there are no more.

    While `go_on` is not set it answers nobody.
    """

    def __init__(self, path: Path) -> None:
        self.answers: deque[str] = deque()
        self.asked = 0
        self.go_on = threading.Event()
        self.go_on.set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o666)
        self._listener.listen()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.go_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                stream, _ = self._listener.accept()
                threading.Thread(target=self._talk, args=(stream,), daemon=True).start()

    def _talk(self, stream: socket.socket) -> None:
        with stream, stream.makefile("rwb") as lines, contextlib.suppress(OSError):
            for line in lines:
                if line == b"\n":
                    self.asked += 1
                    self.go_on.wait(60)
                    answer = self.answers.popleft() if self.answers else "DUNNO"
                    lines.write(f"action={answer}\n\n".encode())
                    lines.flush()


class Cutter:
    """Stands before a server and ends the first connection when the last dot comes, which the server never sees."""

    def __init__(self, world: World, host: Host, server: Host) -> None:
        self._world, self._server = world, server
        self._listener = world.bind((host.address, host.port))
        self.cut = 0
        self.left = 0  # connections still to be cut

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = self._world.connect(self._server, timeout=60)
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()
                threading.Thread(target=self._forth, args=(client, server), daemon=True).start()

    @staticmethod
    def _back(server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := server.recv(65_536):
                client.sendall(octets)
            client.shutdown(socket.SHUT_RDWR)

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        tail = b""
        with client, server, contextlib.suppress(OSError):
            while octets := client.recv(65_536):
                tail = (tail + octets)[-len(_END) - len(octets) :]
                if self.left and _END in tail:
                    self.left -= 1
                    self.cut += 1
                    client.shutdown(socket.SHUT_RDWR)
                    server.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(octets)
            server.shutdown(socket.SHUT_RDWR)


@dataclass
class Scene:
    """A sender, the gateway, a receiver, and one that asks a policy server about every recipient."""

    sender: Postfix
    gateway: Gateway
    receiver: Postfix
    choosy: Postfix
    policy: Policy
    cutter: Cutter
    sent: dict[str, bytes] = field(default_factory=dict)

    def send(self, sender: Sender, alias: str) -> None:
        """Send a message that was not sent before."""
        number = next(_NUMBERS)
        text = (
            f"From: <{sender.value}>\nTo: {alias}@forward.test\nDate: Sun, 22 Nov 2026 10:00:00 +0000\n"
            f"Message-ID: <{number}@here>\nSubject: Grüße {number}\nX-Fold: a\n\t b  \n\nText ü\n.\n..\nFrom here  \n\n"
        )
        self.sent[alias] = text.encode()
        self.sender.sendmail(sender.value, f"{alias}@forward.test", self.sent[alias])

    def waits_at(self, sender: Sender, alias: str) -> None:
        """Wait until the message waits where it belongs: with us, or with whom we do not know."""
        if sender is Sender.STRANGER:
            self.sender.wait_log(rf"to=<{alias}@forward\.test>, relay=mx\.forward\.test.* status=deferred .*said: 451")
            assert self.queue() == []
            return
        wait_for(self.queue, what="nothing is in the queue")
        self.sender.wait_empty()

    def queue(self) -> object:
        """Give the ids of what is in our queue."""
        return call(self.gateway.folder / "run" / "control.sock", "queue", verb="select")["ids"]

    def arrives_once(self, alias: str, at: Postfix, box: str) -> None:
        """Wait until everything is where it belongs."""
        at.mailbox(box).wait(timeout=40)
        self.sender.wait_empty(40)
        wait_for(lambda: not self.queue(), what="our queue does not empty")
        at.wait_empty()
        (stored,) = at.mailbox(box).messages()
        assert stored.endswith(self.sent[alias])
        assert self.sender.mailbox("me@known.test").messages() == []

    def clear(self) -> None:
        """Forget all mail and what was logged."""
        self.policy.answers.clear()
        self.policy.go_on.set()
        for server in (self.sender, self.receiver, self.choosy):
            server.drop()
            server.forget_mail()
            (server.folder / "log").write_text("")
        call(self.gateway.folder / "run" / "control.sock", "queue", verb="delete", all=True)


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    if reason := postfix.why_not():
        pytest.skip(reason)
    with namespace_world() as world:
        hosts = [world.host(f"mx.{name}.test", f"{name}.test") for name in ("known", "receiver", "choosy", "cut")]
        one, two, three, four = hosts
        world.dns.add("known.test", "TXT", f"v=spf1 ip4:{one.address} -all")
        gate = world.host("mx.forward.test", "forward.test")
        settings: dict[str, Value] = {"delivery.cutthrough_deadline": "2s", "delivery.retry": ["1s"]}
        asks = {"smtpd_recipient_restrictions": f"check_policy_service unix:{world.folder}/policy"}
        with (
            Policy(world.folder / "policy") as policy,
            Postfix(world, one, [sender.value for sender in Sender]) as sender,
            Postfix(world, two, ["box@receiver.test", "box@cut.test"]) as receiver,
            Postfix(world, three, ["box@choosy.test"], settings=asks) as choosy,
            Cutter(world, four, two) as cutter,
            Gateway(world, gate, RULES, settings=settings) as gateway,
        ):
            yield Scene(sender, gateway, receiver, choosy, policy, cutter)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.clear()
    return everybody


each = pytest.mark.parametrize("sender", list(Sender), ids=lambda sender: sender.name.lower())


@each
def test_a_receiver_that_is_down(scene: Scene, sender: Sender) -> None:
    scene.receiver.end()
    scene.send(sender, "box")
    scene.waits_at(sender, "box")
    scene.receiver.start()
    scene.arrives_once("box", scene.receiver, "box@receiver.test")


@each
def test_a_receiver_that_stands_still(scene: Scene, sender: Sender) -> None:
    """The kernel makes connections for it, but nobody greets."""
    process = scene.receiver.process
    assert process is not None
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        scene.send(sender, "box")
        scene.waits_at(sender, "box")
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    scene.arrives_once("box", scene.receiver, "box@receiver.test")


@each
def test_a_receiver_that_is_slow(scene: Scene, sender: Sender) -> None:
    """It takes longer than we let the sender wait, and then takes it."""
    scene.policy.go_on.clear()
    scene.send(sender, "choosy")
    scene.waits_at(sender, "choosy")
    scene.policy.go_on.set()
    scene.arrives_once("choosy", scene.choosy, "box@choosy.test")


@each
@pytest.mark.parametrize("answers", [[GREYLISTED], [LATER, LATER]], ids=["greylisting", "451 then 250"])
def test_a_receiver_that_puts_off(scene: Scene, sender: Sender, answers: list[str]) -> None:
    scene.policy.answers.extend(answers)
    asked = scene.policy.asked
    scene.send(sender, "choosy")
    scene.arrives_once("choosy", scene.choosy, "box@choosy.test")
    assert scene.policy.asked == asked + len(answers) + 1


@each
def test_a_receiver_that_is_full(scene: Scene, sender: Sender) -> None:
    room(scene.receiver, "1000000000000000")
    scene.send(sender, "box")
    scene.waits_at(sender, "box")
    assert "452 4.3.1" in scene.gateway.text
    room(scene.receiver, "0")
    scene.arrives_once("box", scene.receiver, "box@receiver.test")


def room(server: Postfix, octets: str) -> None:
    """Start a server again that wants so much free space."""
    server.end()
    main = server.folder / "main.cf"
    text = re.sub(r"^queue_minfree = .*\n", "", main.read_text(), flags=re.MULTILINE)
    main.write_text(f"{text}queue_minfree = {octets}\n")
    os.utime(main, (0, 0))
    server.start()


@each
def test_a_connection_that_ends_after_the_dot(scene: Scene, sender: Sender) -> None:
    cut, scene.cutter.left = scene.cutter.cut, 1
    scene.send(sender, "cut")
    scene.arrives_once("cut", scene.receiver, "box@cut.test")
    assert scene.cutter.cut == cut + 1
