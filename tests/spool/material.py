"""Letters to store, a disk that fails on purpose, and what a folder holds."""

import errno
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from forwarder.model.address import Address
from forwarder.model.destination import Destination, Hop
from forwarder.model.envelope import Body, MailOptions, RcptOptions
from forwarder.model.letter import Kind, Letter, Part, Progress, State
from forwarder.model.message import Content, Delivery, MemoryContent, Outgoing
from forwarder.spool.disk import RealDisk, Space
from forwarder.spool.hands import Inline
from forwarder.spool.room import SpoolSettings
from forwarder.spool.store import EmbeddedSpool
from tests.fakes import FakeClock, RecordingLog

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SMALL = SpoolSettings(minimum_free=0, minimum_files=0, ballast=4096)
ALIAS = Address("shop", "example.org")
INBOX = Destination(Address("me", "gmail.example"))
QUEUED = Progress(State.QUEUED, NOW)
DELIVERED = Progress(State.DELIVERED, attempts=1, reply="250 2.0.0 OK", relay="mx.example[192.0.2.1]:25")
HELD = Progress(State.HELD, reply="552 5.2.2 full", untold=True)


def number(n: int) -> str:
    """The id of letter n."""
    return "".join(ALPHABET[n >> shift & 31] for shift in range(75, -5, -5))


def letter(n: int, content: Content | bytes = b"Subject: x\r\n\r\nbody\r\n", parts: int = 1, **fields: Any) -> Letter:
    octets = MemoryContent(content) if isinstance(content, bytes) else content
    delivery = Delivery(ALIAS, INBOX, b"Received: from here\r\n")
    fields = {"received": NOW + timedelta(seconds=n % 1000), "progress": (QUEUED,) * parts, **fields}
    outgoing = Outgoing(number(n), ALIAS, ALIAS, MailOptions(), octets, (delivery,) * parts)
    return Letter(outgoing, **fields)


def part(n: int, index: int = 0) -> Part:
    return Part(number(n), index)


async def opened(folder: Path, log: RecordingLog | None = None, **wanted: Any) -> EmbeddedSpool:
    """A spool in `folder`/spool whose work is done inline."""
    wanted = {"clock": FakeClock(), "settings": SMALL, "hands": Inline(), **wanted}
    return await EmbeddedSpool.open(folder / "spool", log=log or RecordingLog(), **wanted)


def names(folder: Path, inner: str) -> set[str]:
    return {path.name for path in (folder / "spool" / inner).iterdir()}


def octets(content: Content) -> bytes:
    return b"".join(content.chunks())


def comparable(one: Letter) -> tuple[object, ...]:
    """Everything that a letter says, its content as octets."""
    m = one.message
    envelope = (m.id, m.sender, m.original_sender, m.options, m.deliveries, m.authenticated)
    rest = (one.received, one.progress, one.kind, one.bounceable, one.author, one.message_id)
    return (*envelope, octets(m.content), m.content.eight_bit, *rest)


_CHARACTERS = st.characters(min_codepoint=32, exclude_categories=["Cs"])
_LOCAL = st.one_of(st.from_regex(r"[a-z0-9.+=_-]{1,20}", fullmatch=True), st.text(_CHARACTERS, min_size=1, max_size=20))
_DOMAIN = st.sampled_from(["example.org", "xn--bcher-kva.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", ""])
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ADDRESSES = st.builds(Address, _LOCAL, _DOMAIN)
_TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))
_HOPS = st.builds(Hop, st.sampled_from(["192.0.2.7", "2001:db8::1", "mx.example"]), st.none() | st.integers(1, 65_535))
_DELIVERIES = st.builds(
    Delivery,
    ADDRESSES,
    st.builds(Destination, ADDRESSES, st.none() | _HOPS),
    st.sampled_from([b"", b"A: 1\r\n", b"A: 1\r\nB: \xff\r\n"]) | st.binary(max_size=50),
    st.builds(RcptOptions, st.frozensets(st.sampled_from(["NEVER", "SUCCESS", "FAILURE", "DELAY"])), _TEXT),
)
_COUNTS = st.integers(0, 2**31)
PROGRESSES = st.builds(
    Progress,
    st.sampled_from(State),
    st.none() | _TIMES,
    _COUNTS,
    st.floats(0, allow_nan=False, allow_infinity=False),
    _TEXT,
    _TEXT,
    st.booleans(),
    _COUNTS,
)
_MAIL = st.builds(
    MailOptions, _COUNTS, st.sampled_from(Body), st.booleans(), st.sampled_from(["", "FULL", "HDRS"]), _TEXT
)


@st.composite
def letters(draw: st.DrawFn) -> Letter:
    """Any letter that is not done with."""
    deliveries = draw(st.lists(_DELIVERIES, min_size=1, max_size=4))
    first = draw(PROGRESSES.filter(lambda progress: not progress.state.final))
    rest = draw(st.lists(PROGRESSES, min_size=len(deliveries) - 1, max_size=len(deliveries) - 1))
    sender, original = draw(st.none() | ADDRESSES), draw(st.none() | ADDRESSES)
    outgoing = Outgoing(
        draw(st.text(ALPHABET, min_size=16, max_size=16)),
        sender,
        original,
        draw(_MAIL),
        MemoryContent(draw(st.binary(max_size=3000))),
        tuple(deliveries),
        draw(st.booleans()),
    )
    texts = (draw(_TEXT), draw(_TEXT))
    kind = draw(st.sampled_from(Kind))
    return Letter(outgoing, draw(_TIMES), (first, *rest), kind, draw(st.booleans()), *texts)


class FailingDisk(RealDisk):
    """Counts operations, and fails in the one that has the number `at` (all from there on, with `on`)."""

    def __init__(self) -> None:
        self.count = 0
        self.at = -1
        self.on = False
        self.error = errno.EIO
        self.short = False
        self.failed = ""
        self.free: Space | None = None
        self.steps: list[str] = []

    def fail(self, at: int, error: int = errno.EIO, *, on: bool = False) -> None:
        self.count, self.at, self.error, self.on, self.failed = 0, at, error, on, ""

    def heal(self) -> None:
        self.at = -1

    def _step(self, name: str) -> None:
        self.steps.append(name)
        hit = self.count == self.at or (self.on and 0 <= self.at <= self.count)
        self.count += 1
        if hit:
            self.failed = self.failed or name
            raise OSError(self.error, os.strerror(self.error))

    def write(self, descriptor: int, octets: memoryview) -> int:
        self._step("write")
        return super().write(descriptor, octets[: max(1, len(octets) // 2)] if self.short else octets)

    def space(self, path: Path) -> Space:
        self._step("space")
        return self.free or super().space(path)

    def connect(self, path: Path) -> sqlite3.Connection:
        self._step("connect")
        return super().connect(path)


def _counted(name: str) -> Callable[..., Any]:
    original = getattr(RealDisk, name)

    def operation(self: FailingDisk, *arguments: Any) -> Any:
        self._step(name)
        return original(self, *arguments)

    return operation


for _name in ("create", "open", "read", "allocate", "sync", "open_folder", "make_folder", "rename", "unlink"):
    setattr(FailingDisk, _name, _counted(_name))
for _name in ("truncate", "scan", "status", "open_status", "lock"):
    setattr(FailingDisk, _name, _counted(_name))
# `close` is left out: a descriptor is ended whatever close(2) says.


class FailingConnection(sqlite3.Connection):
    """Fails in statements that begin with `failing`, `times` times."""

    failing = ""
    code = sqlite3.SQLITE_IOERR
    times = 1_000_000
    afterwards = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if not self.failing or not sql.startswith(self.failing) or self.times <= 0:
            return super().execute(sql, *arguments)
        self.times -= 1
        if self.afterwards:
            super().execute(sql, *arguments)
        error = sqlite3.OperationalError("injected")
        error.sqlite_errorcode = self.code
        raise error


class DatabaseDisk(FailingDisk):
    """A disk whose database fails on purpose."""

    connection: FailingConnection

    def connect(self, path: Path) -> sqlite3.Connection:
        uri = f"{path.as_uri()}?mode=rw"
        self.connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, factory=FailingConnection
        )
        return self.connection
