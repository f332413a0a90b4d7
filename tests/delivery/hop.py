"""A next hop that does as it is told: an SMTP server on a loopback address, in the test's own event loop.

`Hop.says` scripts it: a list of answers for each verb ("GREETING", "EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA",
"DOT", "RSET", "QUIT"), used up one by one; then the usual answers follow. `Hop.rcpt` scripts single recipients by their
address. An answer is the text of a reply, raw octets, or a `Trick`.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import TypeAlias

import trustme

ALL = ("SIZE 50000000", "8BITMIME", "SMTPUTF8", "PIPELINING", "ENHANCEDSTATUSCODES", "DSN")
PLAIN = ("SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN")


class Trick(Enum):
    SILENT = "never answers"
    CLOSE = "closes"
    GARBAGE_HANDSHAKE = "says 220 to STARTTLS, then something that is not TLS"
    WAIT = "answers as usual once `go` is set"
    DEFER = "answers 451 once `go` is set"


Answer: TypeAlias = str | bytes | Trick

USUAL: Mapping[str, str] = {
    "GREETING": "220 hop.test ESMTP",
    "HELO": "250 hop.test",
    "STARTTLS": "220 2.0.0 go ahead",
    "MAIL": "250 2.1.0 ok",
    "RCPT": "250 2.1.5 ok",
    "DATA": "354 go ahead",
    "DOT": "250 2.0.0 taken",
    "RSET": "250 2.0.0 ok",
    "QUIT": "221 2.0.0 bye",
    "NOOP": "250 2.0.0 ok",
}


@dataclass
class Taken:
    """A message that was answered with 250."""

    mail: str
    rcpt: list[str]
    octets: bytes
    tls: bool


@dataclass
class Hop:
    offers: Sequence[str] = ALL
    says: dict[str, list[Answer]] = field(default_factory=dict)
    rcpt: dict[str, Answer] = field(default_factory=dict)
    tls: bool = False
    keep: bool = True  # the octets of messages
    go: asyncio.Event = field(default_factory=asyncio.Event)
    taken: list[Taken] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    octets: int = 0
    connections: int = 0
    open: int = 0
    most_open: int = 0
    address: str = ""
    port: int = 0
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def verbs(self) -> list[str]:
        return [line.split(" ")[0].split(":")[0] for line in self.lines]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, _OverError):
                await _Dialogue(self, reader, writer).run()
        finally:
            self.open -= 1
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    def speak_up(self, octets: bytes) -> None:
        """Say something on every connection, unasked."""
        for writer in self._writers:
            writer.write(octets)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _OverError(Exception):
    pass


class _Dialogue:
    def __init__(self, hop: Hop, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hop = hop
        self.reader = reader
        self.writer = writer
        self.secured = False
        self.mail = ""
        self.rcpt: list[str] = []

    async def run(self) -> None:
        await self.answer("GREETING", "")
        while line := await self.reader.readline():
            text = line.decode().rstrip("\r\n")
            self.hop.lines.append(text)
            verb = text.split(" ")[0].upper()
            code = await self.answer(verb, text)
            await self.heed(verb, text, code)

    async def heed(self, verb: str, text: str, code: str) -> None:
        if verb == "QUIT":
            raise _OverError
        if verb == "STARTTLS" and code.startswith("220"):
            await self.writer.start_tls(server_context())
            self.secured = True
        elif verb == "MAIL" and code.startswith("2"):
            self.mail, self.rcpt = text, []
        elif verb == "RSET":
            self.mail, self.rcpt = "", []
        elif verb == "RCPT" and code.startswith("2"):
            self.rcpt.append(text)
        elif verb == "DATA" and code.startswith("354"):
            octets = await self.content()
            if (await self.answer("DOT", "")).startswith("250"):
                self.hop.taken.append(Taken(self.mail, self.rcpt, octets, self.secured))
            self.mail, self.rcpt = "", []

    async def answer(self, verb: str, text: str) -> str:
        answer = self.chosen(verb, text)
        if answer in (Trick.WAIT, Trick.DEFER):
            await self.hop.go.wait()
            answer = self.usual(verb) if answer is Trick.WAIT else "451 4.3.0 later"
        if answer is Trick.CLOSE:
            raise _OverError
        if answer is Trick.SILENT:
            await asyncio.Event().wait()
        if answer is Trick.GARBAGE_HANDSHAKE:
            self.writer.write(b"220 go ahead\r\n")
            await self.reader.read(65536)
            self.writer.write(b"this is not TLS at all\r\n" * 10)
            await self.writer.drain()
            raise _OverError
        octets = answer if isinstance(answer, bytes) else f"{answer}\r\n".encode()
        self.writer.write(octets)
        await self.writer.drain()
        if octets.startswith(b"421"):
            raise _OverError
        return octets[:4].decode()

    def chosen(self, verb: str, text: str) -> Answer:
        if verb == "RCPT" and (named := re.search("<(.*?)>", text)) and named[1] in self.hop.rcpt:
            return self.hop.rcpt[named[1]]
        if said := self.hop.says.get(verb):
            return said.pop(0)
        return self.usual(verb)

    def usual(self, verb: str) -> str:
        if verb == "EHLO":
            offers = [*self.hop.offers, *(["STARTTLS"] if self.hop.tls and not self.secured else [])]
            lines = ["hop.test", *offers]
            return "\r\n".join(f"250{'-' if n < len(lines) - 1 else ' '}{line}" for n, line in enumerate(lines))
        if verb == "RCPT" and not self.mail:
            return "503 5.5.1 MAIL first"
        if verb == "DATA" and not self.rcpt:
            return "554 5.5.1 no valid recipients"
        return USUAL.get(verb, "500 5.5.2 what?")

    async def content(self) -> bytes:
        kept, tail = bytearray(), b"\r\n"
        while True:
            chunk = await self.reader.read(65536)
            if not chunk:
                raise _OverError
            self.hop.octets += len(chunk)
            window = tail + chunk
            end = window.find(b"\r\n.\r\n")
            if self.hop.keep:
                kept += chunk
            if end >= 0:
                wire = b"\r\n" + bytes(kept[:-3])
                return wire.replace(b"\r\n.", b"\r\n")[2:]
            tail = window[-4:]


@asynccontextmanager
async def listening(hop: Hop, address: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Hop]:
    """Serve a hop; `hop.port` is set. Several hops get one port at addresses of their own."""
    server = await asyncio.start_server(hop.serve, address, port)
    hop.address, hop.port = server.sockets[0].getsockname()[:2]
    try:
        yield hop
    finally:
        server.close()
        await hop.stop()
        await server.wait_closed()


@cache
def _certificate() -> trustme.LeafCert:
    return trustme.CA().issue_cert("hop.test")


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificate().configure_cert(context)
    return context
