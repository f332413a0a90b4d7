"""A scripted next hop: takes mail by SMTP, keeps the exact octets, answers as the script says.

One thread per connection. A `Script` may be exchanged at any moment; a transaction reads it as it goes. The receiver
keeps the octets between 354 and the final dot both as they came (`wire`) and unstuffed (`octets`).
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from tests.lab.world import Host, World

_ALL = ("PIPELINING", "SIZE 104857600", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Received:
    """One message that was answered: paths are without brackets, `mail` is the whole MAIL line."""

    mail: str
    sender: str
    recipients: tuple[str, ...]
    wire: bytes
    accepted: bool

    @property
    def octets(self) -> bytes:
        """The content with dots unstuffed (RFC 5321 4.5.2), its last CRLF included."""
        content = self.wire[1:] if self.wire.startswith(b".") else self.wire
        return content.replace(b"\r\n.", b"\r\n")


@dataclass(frozen=True, slots=True)
class Script:
    """What the hop says. Replies are given without CRLF; "" ends the connection without a reply.

    `recipients` holds replies for single recipients; `before_dot` is called when the dot has come and before the
    reply, to wait for something.
    """

    keywords: tuple[str, ...] = _ALL
    greeting: str = "220 hop.test ESMTP"
    mail: str = "250 2.1.0 ok"
    recipients: Mapping[str, str] = field(default_factory=dict)
    dot: str = "250 2.0.0 taken"
    before_dot: Callable[[], object] = lambda: None


class Hop:
    """Listens as a host of the world. `received` has every message whose dot was answered, also the refused ones."""

    def __init__(self, world: World, host: Host, script: Script | None = None) -> None:
        self.host, self.script = host, script or Script()
        self.received: list[Received] = []
        self.connections = 0
        self._world = world
        self.answering = threading.Lock()  # a message is kept and answered in one step
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def up(self) -> None:
        """Begin to listen."""
        self._listener = self._world.bind((self.host.address, self.host.port))
        self._start(self._accept, self._listener)

    def down(self) -> None:
        """Stop listening and end every connection; what is in `received` has had its reply."""
        if self._listener is None:
            return
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._threads.pop(0).join(10)
        with self.answering:
            for stream in list(self._open):
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()
        self._listener.close()
        self._listener = None

    def say(self, **changes: object) -> None:
        """Change parts of the script."""
        self.script = replace(self.script, **changes)  # type: ignore[arg-type]  # the fields of Script

    @property
    def accepted(self) -> list[Received]:
        """What was answered 250."""
        return [message for message in list(self.received) if message.accepted]

    def wait(self, count: int = 1, timeout: float = 20) -> list[Received]:
        """Wait until that many messages were accepted; give all accepted."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while len(self.accepted) < count:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(self.accepted)} of {count} messages came"
                self._changed.wait(left)
        return self.accepted

    def _start(self, work: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=work, args=(sock,), name=f"hop-{self.host.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                stream, _ = listener.accept()
            except OSError:
                return
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # replies to pipelined commands go at once
            self.connections += 1
            self._open.add(stream)
            self._start(self._talk, stream)

    def _talk(self, stream: socket.socket) -> None:
        try:
            with stream, contextlib.suppress(OSError, _Ended):
                _Dialogue(self, stream).run()
        finally:
            self._open.discard(stream)

    def keep(self, message: Received) -> None:
        """Remember a message."""
        with self._changed:
            self.received.append(message)
            self._changed.notify_all()


class _Ended(Exception):  # noqa: N818 - not an error
    """The connection is over."""


class _Dialogue:
    """The server's side of one connection."""

    def __init__(self, hop: Hop, stream: socket.socket) -> None:
        self._hop, self._stream = hop, stream
        self._buffer = b""
        self._mail, self._sender = "", ""
        self._recipients: list[str] = []

    def run(self) -> None:
        self._say(self._hop.script.greeting)
        while True:
            line = self._take(b"\r\n").decode("utf-8", "surrogateescape")
            verb = line[:4].upper()
            if verb == "QUIT":
                self._say("221 2.0.0 bye")
                return
            self._handle(verb, line)

    def _handle(self, verb: str, line: str) -> None:
        script = self._hop.script
        if verb in ("EHLO", "HELO"):
            lines = ["hop.test", *(script.keywords if verb == "EHLO" else ())]
            marks = ["-"] * (len(lines) - 1) + [" "]
            self._say("\r\n".join(f"250{mark}{text}" for mark, text in zip(marks, lines, strict=True)))
        elif verb == "MAIL":
            self._recipients = []
            self._mail, self._sender = (line, _path(line)) if script.mail.startswith("2") else ("", "")
            self._say(script.mail)
        elif verb == "RCPT":
            self._rcpt(_path(line))
        elif verb == "DATA":
            self._data()
        elif verb in ("RSET", "NOOP"):
            if verb == "RSET":
                self._mail, self._recipients = "", []
            self._say("250 2.0.0 ok")
        else:
            self._say("502 5.5.1 not here")

    def _rcpt(self, recipient: str) -> None:
        if not self._mail:  # RFC 5321 3.3: in the order of the commands
            self._say("503 5.5.1 MAIL first")
            return
        reply = self._hop.script.recipients.get(recipient, "250 2.1.5 ok")
        if reply.startswith("2"):
            self._recipients.append(recipient)
        self._say(reply)

    def _data(self) -> None:
        if not self._recipients:
            self._say("503 5.5.1 nobody to send to")
            return
        self._say("354 go on")
        self._buffer = b"\r\n" + self._buffer  # a dot on the first line ends the data too
        wire = (self._take(b"\r\n.\r\n") + b"\r\n")[2:]
        self._hop.script.before_dot()
        reply = self._hop.script.dot
        message = Received(self._mail, self._sender, tuple(self._recipients), wire, accepted=reply.startswith("2"))
        self._mail, self._recipients = "", []
        with self._hop.answering:
            self._hop.keep(message)
            self._say(reply)

    def _say(self, reply: str) -> None:
        if not reply:
            raise _Ended
        self._stream.sendall(reply.encode() + b"\r\n")

    def _take(self, end: bytes) -> bytes:
        """Give what comes before `end`; what follows it is kept for later."""
        pieces = bytearray(self._buffer)
        searched = 0
        while (found := pieces.find(end, searched)) < 0:
            searched = max(0, len(pieces) - len(end))
            octets = self._stream.recv(262_144)
            if not octets:
                raise _Ended
            pieces += octets
        self._buffer = bytes(pieces[found + len(end) :])
        return bytes(pieces[:found])


def _path(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]
