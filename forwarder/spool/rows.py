"""Letters as rows of the database and back, each row with a checksum of its own.

Contract: what `letter_rows` writes `read_letter` gives back equal, and whatever else stands in the rows raises
`Illegible`: a bit that fell over, a value of another type, a part that is missing. CRC-32 finds every burst of up to 32
bits in a row; it is no protection against somebody who may write to the folder, and need not be one.
"""

import zlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import TypeVar

import msgspec

from forwarder.model.address import Address, AddressError, parse_mailbox
from forwarder.model.destination import Destination, Hop
from forwarder.model.envelope import MailOptions, RcptOptions
from forwarder.model.letter import Kind, Letter, Part, Progress, State, Waiting, lane_named
from forwarder.model.message import Content, Delivery, Outgoing

VERSION = 1

SCHEMA = (
    """CREATE TABLE letters (
        id TEXT PRIMARY KEY, kind TEXT, sender TEXT, original_sender TEXT, options TEXT, received INTEGER,
        authenticated INTEGER, bounceable INTEGER, author TEXT, message_id TEXT, size INTEGER, digest BLOB,
        eight_bit INTEGER, parts INTEGER, checksum INTEGER) WITHOUT ROWID""",
    """CREATE TABLE parts (
        letter TEXT, number INTEGER, recipient TEXT, destination TEXT, via TEXT, options TEXT, head INTEGER,
        checksum INTEGER, state TEXT, due INTEGER, attempts INTEGER, waited REAL, reply TEXT, relay TEXT,
        untold INTEGER, noticed INTEGER, progress_checksum INTEGER, PRIMARY KEY (letter, number)) WITHOUT ROWID""",
    "CREATE TABLE heads (letter TEXT, number INTEGER, octets BLOB, PRIMARY KEY (letter, number)) WITHOUT ROWID",
    "CREATE TABLE memory (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
)

INSERT_LETTER = f"INSERT INTO letters VALUES ({','.join('?' * 15)})"  # noqa: S608 - question marks
INSERT_PART = f"INSERT INTO parts VALUES ({','.join('?' * 17)})"  # noqa: S608
INSERT_HEAD = "INSERT INTO heads VALUES (?,?,?)"
TOGETHER = 100  # letters that one statement reads
_IDS = f"({','.join('?' * TOGETHER)})"
SELECT_LETTER = "SELECT * FROM letters WHERE id = ?"
SELECT_LETTERS = f"SELECT * FROM letters WHERE id IN {_IDS}"  # noqa: S608
_PARTS = (
    "SELECT parts.*, heads.octets FROM parts"
    " LEFT JOIN heads ON heads.letter = parts.letter AND heads.number = parts.head"
)
SELECT_PARTS = f"{_PARTS} WHERE parts.letter = ? ORDER BY parts.number"
SELECT_PARTS_TOGETHER = f"{_PARTS} WHERE parts.letter IN {_IDS} ORDER BY parts.letter, parts.number"
PROGRESS = "letter, number, state, due, attempts, waited, reply, relay, untold, noticed, progress_checksum"
_WAITING = (
    f"SELECT parts.{PROGRESS.replace(', ', ', parts.')}, destination, via, letters.authenticated, letters.kind"  # noqa: S608
    " FROM parts LEFT JOIN letters ON letters.id = parts.letter"
)
_IN_ORDER = " ORDER BY parts.letter, parts.number LIMIT ?"
SELECT_WAITING_FIRST = _WAITING + _IN_ORDER
SELECT_WAITING_AFTER = f"{_WAITING} WHERE (parts.letter, parts.number) > (?, ?){_IN_ORDER}"
SELECT_PROGRESS = f"SELECT {PROGRESS} FROM parts WHERE letter = ?"  # noqa: S608
UPDATE_PROGRESS = (
    "UPDATE parts SET state = ?, due = ?, attempts = ?, waited = ?, reply = ?, relay = ?, untold = ?, noticed = ?,"
    " progress_checksum = ? WHERE letter = ? AND number = ?"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT = 2048  # values of each kind that many rows share, kept as read
_TICK = timedelta(microseconds=1)
_STATES = {state.value: state for state in State}

Row = tuple[object, ...]
_T = TypeVar("_T")
_pack = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder(order="deterministic").encode


class Illegible(Exception):  # noqa: N818 - it says what is the matter
    """A row is not what was written; the text says how that was seen."""


class LetterRow(msgspec.Struct, array_like=True, frozen=True):
    """The columns of a letter that stand in its own row."""

    id: str
    kind: Kind
    sender: str | None
    original_sender: str | None
    options: str
    received: int
    authenticated: bool
    bounceable: bool
    author: str
    message_id: str
    size: int
    digest: bytes
    eight_bit: bool
    parts: int


def letter_rows(letter: Letter, content: Content) -> tuple[Row, list[Row], list[Row]]:
    """Give the rows of a letter, of its parts and of its heads, identical heads once.

    `content` is the one that was filed. Raises what the encoders raise for values that no row can hold.
    """
    message = letter.message
    fields: Row = (
        message.id,
        letter.kind.value,
        _written(message.sender),
        _written(message.original_sender),
        _json(message.options).decode(),
        _ticks(letter.received),
        int(message.authenticated),
        int(letter.bounceable),
        letter.author,
        letter.message_id,
        content.size,
        content.digest,
        int(content.eight_bit),
        len(message.deliveries),
    )
    heads: dict[bytes, int] = {}
    pairs = enumerate(zip(message.deliveries, letter.progress, strict=True))
    parts = [_part_row(Part(message.id, number), one, progress, heads) for number, (one, progress) in pairs]
    return (*fields, _checksum(fields)), parts, [(message.id, number, head) for head, number in heads.items()]


def _part_row(part: Part, delivery: Delivery, progress: Progress, heads: dict[bytes, int]) -> Row:
    via = delivery.destination.via
    fixed: Row = (
        part.id,
        part.number,
        _written(delivery.recipient),
        _written(delivery.destination.address),
        None if via is None else _json(via).decode(),
        _json(delivery.options).decode(),
        heads.setdefault(delivery.head, len(heads)),
    )
    return (*fixed, _checksum((*fixed, delivery.head)), *progress_row(part, progress))


def progress_row(part: Part, progress: Progress) -> Row:
    """Give the columns of a part that change, their checksum last."""
    fields: Row = (
        progress.state.value,
        None if progress.due is None else _ticks(progress.due),
        progress.attempts,
        float(progress.waited),
        progress.reply,
        progress.relay,
        int(progress.untold),
        progress.noticed,
    )
    return (*fields, _checksum((part.id, part.number, *fields)))


def read_fields(row: Row) -> LetterRow:
    """Read a row of SELECT_LETTERS, () where it is missing; raise `Illegible`."""
    if not row:
        raise Illegible("the letter's row is missing")
    if _checksum(row[:-1]) != row[-1]:
        raise Illegible("the checksum of the letter's row is wrong")
    try:
        return msgspec.convert(row[:-1], LetterRow, strict=False)
    except msgspec.ValidationError as error:
        raise Illegible(f"the letter's row: {error}") from None


def read_letter(fields: LetterRow, parts: list[Row], content: Content) -> Letter:
    """Make a letter of its row and its parts', as SELECT_PARTS gives them; raise `Illegible`."""
    if [part[1] for part in parts] != list(range(fields.parts)):
        raise Illegible(f"of {fields.parts} parts there are {len(parts)}")
    outgoing = Outgoing(
        id=fields.id,
        sender=_address(fields.sender),
        original_sender=_address(fields.original_sender),
        options=_mail_options(fields.options),
        content=content,
        deliveries=tuple(_delivery(part) for part in parts),
        authenticated=fields.authenticated,
    )
    return Letter(
        message=outgoing,
        received=_time(fields.received),
        progress=tuple(read_progress((*part[:2], *part[8:17])) for part in parts),
        kind=fields.kind,
        bounceable=fields.bounceable,
        author=fields.author,
        message_id=fields.message_id,
    )


def read_progress(row: Row) -> Progress:
    """Make the progress of a row that begins with the columns PROGRESS; raise `Illegible`."""
    if _checksum(row[:10]) != row[10]:
        raise Illegible("the checksum of a part's progress is wrong")
    state, due, attempts, waited, reply, relay, untold, noticed = row[2:10]
    try:
        when = None if due is None else _time(due)  # type: ignore[arg-type] # the checksum vouches for the types
        return Progress(_STATES[state], when, attempts, waited, reply, relay, bool(untold), noticed)  # type: ignore[index,arg-type]
    except (KeyError, TypeError, OverflowError):
        raise Illegible("a part's progress has values that do not exist") from None


def read_waiting(row: Row) -> Waiting:
    """Make of a row of SELECT_WAITING what a schedule needs; raise `Illegible`."""
    progress = read_progress(row)
    destination, via, authenticated, kind = row[11:]
    part = Part(text(row[0]), row[1])  # type: ignore[arg-type] # the checksum vouches for the types
    if not isinstance(destination, str) or authenticated is None:
        raise Illegible("a part has no letter or no destination")
    leads_to = destination.rpartition("@")[2] if via is None else str(_hop(via))
    lane = lane_named(leads_to, Kind.BOUNCE if kind == Kind.BOUNCE.value else Kind.MAIL)
    return Waiting(part, intern(lane), progress, bool(authenticated))


def text(key: object) -> str:
    """Give a key as text, whatever damage made of it."""
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else "" if key is None else str(key)


def raw_address(written: str) -> str:
    """Give the form in which rows hold the address that a person wrote, folded for comparison."""
    try:
        return (_written(parse_mailbox(written)) or "").casefold()
    except AddressError:
        return written.casefold()


def _delivery(row: Row) -> Delivery:
    head = row[17]
    if _checksum((*row[:7], head)) != row[7] or not isinstance(head, bytes):
        raise Illegible("the checksum of a part's row is wrong")
    recipient, destination = _address(row[2]), _address(row[3])
    if recipient is None or destination is None:
        raise Illegible("a part has no address")
    via = None if row[4] is None else _hop(row[4])
    return Delivery(recipient, Destination(destination, via), head, _rcpt_options(row[5]))


def _checksum(fields: Row) -> int:
    try:
        return zlib.crc32(_pack(fields))
    except UnicodeEncodeError:  # octets that are no text, read with surrogates
        return -1


def _written(address: Address | None) -> str | None:
    """Write an address so that it can be read back exactly: no domain holds an @, so nothing needs quoting."""
    return None if address is None else f"{address.local}@{address.domain}"


@lru_cache(_KEPT)
def _address(written: object) -> Address | None:
    if not isinstance(written, str):
        return None
    local, _, domain = written.rpartition("@")
    return Address(local, domain)


def _decoded(written: object, type: type[_T]) -> _T:
    if not isinstance(written, str):
        raise Illegible("a value is missing")
    try:
        return msgspec.json.decode(written, type=type)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise Illegible(f"a value cannot be read: {error}") from None


@lru_cache(_KEPT)
def _hop(written: object) -> Hop:
    return _decoded(written, Hop)


@lru_cache(_KEPT)
def _mail_options(written: object) -> MailOptions:
    return _decoded(written, MailOptions)


@lru_cache(_KEPT)
def _rcpt_options(written: object) -> RcptOptions:
    return _decoded(written, RcptOptions)


def _ticks(time: datetime) -> int:
    return (time - _EPOCH) // _TICK


def _time(ticks: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ticks)
