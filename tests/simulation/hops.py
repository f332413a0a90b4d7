"""Simulated next hops: SMTP servers as state machines behind the `Dialer` port, and the DNS that leads to them.

What a hop does is drawn at every step from its own randomness: until `ends` it refuses, defers, is silent, closes (also
after the dot, with or without having taken the message), answers late or is down; afterwards it is a good one, but for
what it refuses for good. A message counts as taken the moment the hop decides so, whether its 250 arrives or not.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from forwarder.model.envelope import Tls
from forwarder.ports import Answer, ConnectionLost, DnsStatus, Mx, TimedOut
from tests.simulation.loop import PROCESS, Process
from tests.simulation.world import Copy, World

T = TypeVar("T")

DEFERRALS = (
    "451 4.3.0 try again later",
    "421 4.7.0 come back later",
    "450 4.2.0 greylisted",
    "452 4.2.2 mailbox over quota",
    "421 4.7.28 unusual rate of mail from your address",
    "421 4.7.0 suspicious due to the nature of the content and the links within",
    "450 4.7.25 no reverse name for your address",
    "550 5.7.1 Service unavailable; client host [192.0.2.1] blocked using zen.spamhaus.org",
)
REFUSALS = ("550 5.1.1 no such user", "554 5.6.0 message refused", "552 5.2.2 mailbox full", "550 5.7.1 spam")
_PATH = re.compile(rb"<([^>]*)>")
_ID = re.compile(rb"with \w+(?: \([^)]*\))? id ([0-9A-Z]{16})")
_TOKEN = re.compile(rb"Message-ID: <(\w+)@")


@dataclass(frozen=True, slots=True)
class Temper:
    """How likely a hop does what, while it is bad."""

    down: float = 0.0
    defer: float = 0.0
    refuse: float = 0.0
    close: float = 0.0
    silent: float = 0.0
    slow: float = 0.0


@dataclass(eq=False)
class Hop:
    """One address. `dead` never listens; `dying` are (begin, end) in which nobody listens."""

    name: str
    domain: str
    world: World
    randomness: Random
    temper: Temper
    ends: float
    delay: float = 0.0
    dead: bool = False
    dying: tuple[float, float] = (0.0, 0.0)
    grey: bool = False
    tls: bool = False
    dsn: bool = False
    nobody: frozenset[str] = frozenset()
    met: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def bad(self) -> bool:
        return self.world.now < self.ends

    def chance(self, probability: float) -> bool:
        return probability > 0 and self.bad and self.randomness.random() < probability

    def deferral(self) -> str:
        text = DEFERRALS[int(self.randomness.random() * len(DEFERRALS))]
        if "suspicious" in text:  # said often enough it is final
            self.world.refusals[self.domain] = self.world.now
        return text

    def refusal(self) -> str:
        return REFUSALS[int(self.randomness.random() * len(REFUSALS))]


class Network:
    """Implements `Dialer` for one gateway process."""

    def __init__(self, hops: dict[str, Hop], process: Process, outside: Context) -> None:
        self._hops = hops
        self._process = process
        self._outside = outside

    async def connect(self, address: str, port: int, *, source: str | None, timeout: float) -> "Wire":
        hop = self._hops[address]
        if hop.delay:
            await asyncio.sleep(hop.delay * hop.randomness.random())
        begin, end = hop.dying
        if hop.dead or begin <= hop.world.now < end or hop.chance(hop.temper.down):
            if hop.randomness.random() < 0.5:
                raise ConnectionLost("connection refused")
            await asyncio.sleep(timeout)
            raise TimedOut(f"timed out after {timeout:g} s")
        return Wire(hop, self._process, self._outside)


class Wire:
    """One connection, both ends of it: the `Connection` port in front, the hop's state machine behind."""

    def __init__(self, hop: Hop, process: Process, outside: Context) -> None:
        self._hop = hop
        self._process = process
        self._outside = outside
        self._inbox = bytearray()
        self._closed = False  # by the hop
        self._gone = False  # closed by the gateway
        self._waiter: asyncio.Future[None] | None = None
        self._line = bytearray()
        self._content: bytearray | None = None
        self._sender = ""
        self._to: list[str] = []
        self._unread: list[Copy] = []
        self._copies: list[Copy] = []
        self._over: float | None = None
        self._answers_at = 0.0
        self._mute = False
        self.tls: Tls | None = None
        if hop.chance(hop.temper.defer / 3):
            self._say(hop.deferral(), close=True)
        elif hop.chance(hop.temper.silent / 3):
            self._mute = True
        else:
            self._say(f"220 {hop.name} ESMTP")

    # The gateway's side

    @property
    def ended(self) -> bool:
        return self._closed or bool(self._inbox)

    async def read(self, timeout: float) -> bytes:
        if not self._inbox and not self._closed:
            if timeout <= 0:
                raise TimedOut("timed out")
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not self._inbox and not self._closed:
                raise TimedOut("timed out")
        octets = bytes(self._inbox)
        self._inbox.clear()
        for copy in self._unread:
            copy.heard = self._hop.world.now
        self._unread.clear()
        return octets

    async def write(self, pieces: Iterable[bytes], timeout: float) -> None:
        for piece in pieces:
            if self._closed:
                raise ConnectionLost("connection reset by the peer")
            self._take(piece)
            if self._content is not None:
                await asyncio.sleep(0)  # content goes piece by piece: we may end in between

    async def start_tls(self, host: str, timeout: float) -> None:
        if self._hop.chance(0.2):
            self._closed = True
            raise ConnectionLost("the handshake failed")
        self.tls = Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384")
        self._inbox.clear()

    async def close(self) -> None:
        self._gone = True
        self._over = self._hop.world.now
        for copy in self._copies:
            copy.over = self._over

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    # The hop's side

    def _say(self, text: str, delay: float = 0.0, *, close: bool = False, copies: Iterable[Copy] = ()) -> None:
        """Answer, after what was said before; the answer is lost if nobody is there any more."""
        if self._mute:
            return
        now = self._hop.world.now
        if delay <= 0 and self._answers_at <= now:
            self._arrive(text, close, tuple(copies))
            return
        self._answers_at = max(self._answers_at, now + delay)
        self._at(self._answers_at, lambda: self._arrive(text, close, tuple(copies)))

    def _at(self, when: float, what: Callable[[], None]) -> None:
        self._hop.world.loop.call_at(when, what, context=self._outside)

    def _arrive(self, text: str, close: bool, copies: tuple[Copy, ...]) -> None:
        if self._gone or self._process.dead or self._closed:
            return
        if text:
            self._inbox += text.encode() + b"\r\n"
        self._unread += copies
        self._closed = self._closed or close
        self._wake()

    def _take(self, octets: bytes) -> None:
        if self._in_content():
            self._take_content(octets)
            return
        self._line += octets
        while not (self._in_content() or self._closed):
            end = self._line.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._line[:end])
            del self._line[: end + 2]
            self._command(line)
        if self._in_content() and self._line:
            rest = bytes(self._line)
            self._line.clear()
            self._take_content(rest)

    def _in_content(self) -> bool:
        return self._content is not None

    def _command(self, line: bytes) -> None:
        hop, verb = self._hop, line[:4].upper()
        if hop.chance(hop.temper.close / 8):
            self._closed = True
            self._wake()
            return
        if hop.chance(hop.temper.silent / 8):
            self._mute = True
        if verb == b"EHLO":
            offers = ["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
            offers += ["STARTTLS"] * (hop.tls and self.tls is None) + ["DSN"] * hop.dsn
            self._say("\r\n".join([f"250-{one}" for one in (hop.name, *offers[:-1])] + [f"250 {offers[-1]}"]))
        elif verb == b"STAR":
            self._say("220 2.0.0 go ahead")
        elif verb == b"MAIL":
            self._sender, self._to = _address(line), []
            self._say(hop.deferral() if hop.chance(hop.temper.defer / 4) else "250 2.1.0 ok")
        elif verb == b"RCPT":
            self._recipient(_address(line))
        elif verb == b"DATA":
            self._data()
        elif verb == b"QUIT":
            self._say("221 2.0.0 bye", close=True)
        else:
            self._say("250 2.0.0 ok")

    def _recipient(self, to: str) -> None:
        hop, now = self._hop, self._hop.world.now
        if to in hop.nobody or hop.chance(hop.temper.refuse):
            self._refuse([to], hop.refusal() if to not in hop.nobody else REFUSALS[0])
        elif hop.grey and now - hop.met.setdefault((self._sender, to), now) < 300:
            self._say("450 4.2.0 greylisted, come back in five minutes")
        elif hop.chance(hop.temper.defer / 2):
            self._say(hop.deferral())
        else:
            self._to.append(to)
            self._say("250 2.1.5 ok")

    def _refuse(self, to: Iterable[str], text: str, delay: float = 0.0) -> None:
        for one in to:
            self._hop.world.refusals[one] = self._hop.world.now
        self._say(text, delay)

    def _data(self) -> None:
        if not self._to:
            self._say("554 5.5.1 no valid recipients")
        elif self._hop.chance(self._hop.temper.defer / 4):
            self._say(self._hop.deferral())
        else:
            self._content = bytearray()
            self._say("354 go ahead")

    def _take_content(self, octets: bytes) -> None:
        assert self._content is not None
        hop, content = self._hop, self._content
        if hop.chance(hop.temper.close / 8):  # before the dot: nobody has it
            self._closed = True
            self._wake()
            return
        content += octets
        if content[:3] == b".\r\n" or content.endswith(b"\r\n.\r\n"):
            self._content = None
            self._dot(re.sub(rb"(?m)^\.\.", b".", bytes(content[:-3])))

    def _dot(self, octets: bytes) -> None:
        hop, to, now = self._hop, self._to, self._hop.world.now
        self._to = []
        delay = 0.0
        if hop.chance(hop.temper.slow):
            delay = hop.randomness.choice((3.0, 24.9, 25.1, 40.0, 400.0, 700.0, 4000.0))
        if hop.chance(hop.temper.defer):
            self._say(hop.deferral(), delay)
        elif hop.chance(hop.temper.refuse):
            self._refuse(to, hop.refusal(), delay)
        elif hop.chance(hop.temper.close):
            if hop.randomness.random() < 0.5:
                self._keep(to, octets, now)
            self._say("", delay, close=True)
        elif hop.chance(hop.temper.silent):
            self._keep(to, octets, now)
            self._mute = True
        elif delay and hop.randomness.random() < 0.5:  # it takes the message when it says so
            self._at(now + delay, lambda: self._say("250 2.0.0 taken", copies=self._keep(to, octets, now)))
        else:
            self._say("250 2.0.0 taken", delay, copies=self._keep(to, octets, now))

    def _keep(self, to: list[str], octets: bytes, sent: float) -> list[Copy]:
        world = self._hop.world
        copies = [Copy(one, octets, sent, world.now, self._process, self._hop.name, self._over) for one in to]
        head = octets[:4000]
        for copy in copies:
            id = _ID.search(head)
            token = _TOKEN.search(head)
            copy.transaction, copy.token = id[1].decode() if id else "", token[1].decode() if token else ""
            world.tell(f"{self._hop.name} takes {copy.token} of {copy.transaction or 'the gateway'} for {copy.to}")
        world.copies += copies
        self._copies += copies
        return copies


def _address(line: bytes) -> str:
    found = _PATH.search(line)
    return found[1].decode().lower() if found else ""


class Names:
    """Implements `Resolver` over a zone `{(name, type): [data]}`; in a spell questions fail, and that takes time."""

    def __init__(
        self, zone: dict[tuple[str, str], list[str]], spells: list[tuple[float, float, float]], world: World
    ) -> None:
        self._zone = zone
        self._known = {part for name, _ in zone for part in _parents(name)}
        self._spells = spells
        self._world = world
        self._random = world.random("dns")

    async def _look(self, name: str, kind: str) -> tuple[DnsStatus, list[str]]:
        now = self._world.now
        for begin, end, chance in self._spells:
            if begin <= now < end and self._random.random() < chance:
                if self._random.random() < 0.5:
                    await asyncio.sleep(5.0)
                self._world.count("DNS failures")
                return DnsStatus.FAILED, []
        if records := self._zone.get((name, kind)):
            return DnsStatus.FOUND, records
        return (DnsStatus.NODATA if name in self._known else DnsStatus.NXDOMAIN), []

    async def mx(self, name: str) -> Answer[Mx]:
        status, records = await self._look(name, "MX")
        pairs = (record.split(" ") for record in records)
        return Answer(status, tuple(Mx(int(n), host) for n, host in pairs), _reason(status))

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        status, records = await self._look(name, "AAAA" if ipv6 else "A")
        return Answer(status, tuple(records), _reason(status))

    async def txt(self, name: str) -> Answer[bytes]:
        status, records = await self._look(name, "TXT")
        return Answer(status, tuple(record.encode() for record in records), _reason(status))

    async def ptr(self, address: str) -> Answer[str]:
        return Answer(DnsStatus.NXDOMAIN)


def _parents(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[n:]) for n in range(len(labels))]


def _reason(status: DnsStatus) -> str:
    return "the name server did not answer" if status is DnsStatus.FAILED else ""


def in_process(process: Process, context: Context) -> Context:
    """Make a context the process's."""
    context.run(PROCESS.set, process)
    return context
