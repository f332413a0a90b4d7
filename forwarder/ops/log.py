"""The event log: what became of each message, one line per event, for journald, for programs or for eyes.

Contract: `open_log` gives a `ports.EventLog`. Values may be anything a peer sent; each is turned into bounded text in
which no octet can end the line, move the cursor or reorder what is shown. Writing never raises and never waits: an
event that cannot be written is dropped and counted (`Log.dropped`), because mail is worth more than its log.

Left out on purpose: log files and their rotation (journald, or whoever owns stderr, does that).
"""

import json
import math
import os
import re
import select
import stat
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, IntEnum
from itertools import islice
from typing import Protocol

from forwarder.ops.journald import Journal, is_behind
from forwarder.ports import Clock

MAX_VALUE = 1000  # characters of one value; more is cut

_STDERR = 2


class LogFormat(Enum):
    """How events are written. AUTO is the journal where stderr leads to it, otherwise text; never JSON."""

    AUTO = "auto"
    JOURNAL = "journal"
    JSON = "json"
    TEXT = "text"


class Level(IntEnum):
    """How much an event matters, as syslog counts it (RFC 5424 6.2.1)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


# What is not here is INFO. A connection alone tells nothing: port 25 is scanned all day.
_LEVELS = {
    "connect": Level.DEBUG,
    "reject": Level.NOTICE,
    "deferred": Level.NOTICE,
    "bounced": Level.NOTICE,
    "reload": Level.NOTICE,
    "expired": Level.WARNING,
    "held": Level.WARNING,
    "alert": Level.ERROR,
}

# C0, DEL, C1, separators, invisible and reordering characters, lone surrogates; and the backslash, which marks them.
_UNSAFE = re.compile(
    "[\\\\\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
_BARE = re.compile(r"[!#-+\--;?-\[\]-~]+").fullmatch  # printable ASCII without the marks that we write: " , < = > \
_ADDRESS = re.compile(r"[!#-;=?-\[\]-~]*").fullmatch  # "," and "=" are in many an address
_ADDRESSES = frozenset({"from", "to"})
_SEVERAL = (list, tuple, set, frozenset)


class Sink(Protocol):
    """Where events go. `write` says whether the event was written; it neither raises `OSError` nor waits."""

    def write(self, now: datetime, level: Level, name: str, fields: Mapping[str, object]) -> bool:
        """Write one event; no value in `fields` is None."""
        ...


class Log:
    """An `EventLog`. A field named `from_` is written as `from`, which Python keeps for itself."""

    def __init__(self, sink: Sink, level: Level, clock: Clock, bound: Mapping[str, object] | None = None) -> None:
        self._sink = sink
        self._level = level
        self._clock = clock
        self._bound = bound or {}
        self._lost = [0]  # one count for this log and all that are bound from it

    @property
    def dropped(self) -> int:
        """How many events could not be written so far."""
        return self._lost[0]

    def event(self, name: str, /, **fields: object) -> None:
        """Write one event; a value of None leaves its field out."""
        level = _LEVELS.get(name, Level.INFO)
        if level > self._level:
            return
        everything = {**self._bound, **_named(fields)}
        try:
            written = self._sink.write(self._clock.now(), level, name, everything)
        except Exception:  # a value whose str() fails, a closed stream: the log never breaks what it tells of
            written = False
        self._lost[0] += not written

    def bind(self, **fields: object) -> "Log":
        """Give a log that adds these fields to every event."""
        log = Log(self._sink, self._level, self._clock, {**self._bound, **_named(fields)})
        log._lost = self._lost
        return log


class TextSink:
    """Lines for people: `2026-11-22T12:00:00Z delivered id=x from=<a@b> code=250 "OK"`, to a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._output = _Output(descriptor)

    def write(self, now: datetime, level: Level, name: str, fields: Mapping[str, object]) -> bool:
        """Write one line."""
        line = f"{_second(now)}Z {sentence(name, fields)}\n"
        return self._output.write(line.encode("utf-8", "backslashreplace"))


class JsonSink:
    """Lines for programs: one object each, ASCII only, with `time` (RFC 3339) and `event` first."""

    def __init__(self, descriptor: int) -> None:
        self._output = _Output(descriptor)

    def write(self, now: datetime, level: Level, name: str, fields: Mapping[str, object]) -> bool:
        """Write one line."""
        record: dict[str, object] = {"time": f"{_second(now)}.{now.microsecond // 1000:03}Z", "event": name}
        for key, value in fields.items():
            record.setdefault(key, _json_value(value))
        return self._output.write(json.dumps(record).encode() + b"\n")


class JournalSink:
    """Entries for journald: MESSAGE to read, FORWARDER_* to search."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def write(self, now: datetime, level: Level, name: str, fields: Mapping[str, object]) -> bool:
        """Write one entry; journald adds the time."""
        texts = {key: _text(value) for key, value in fields.items()}
        entry = [
            ("MESSAGE", sentence(name, texts)),
            ("PRIORITY", str(int(level))),
            ("SYSLOG_IDENTIFIER", "forwarder"),
            ("FORWARDER_EVENT", name),
        ]
        entry += [(f"FORWARDER_{key.upper()}", escape(text)) for key, text in texts.items()]
        return self._journal.write(entry)


class _Output:
    """A descriptor that is never waited for: a pipe whose reader sleeps must not stop the mail."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: bytes) -> bool:
        try:
            if self._poll and self._poll.poll(0) != [(self._descriptor, select.POLLOUT)]:
                return False
            return os.write(self._descriptor, line) == len(line)
        except OSError:
            return False


def open_log(
    form: LogFormat, level: Level, clock: Clock, *, descriptor: int = _STDERR, environ: Mapping[str, str] = os.environ
) -> Log:
    """Give the log that the configuration asks for, writing to `descriptor` unless it is journald's."""
    if form is LogFormat.AUTO:
        form = LogFormat.JOURNAL if is_behind(descriptor, environ) else LogFormat.TEXT
    sink: Sink
    if form is LogFormat.JOURNAL:
        sink = JournalSink(Journal())
    elif form is LogFormat.JSON:
        sink = JsonSink(descriptor)
    else:
        sink = TextSink(descriptor)
    return Log(sink, level, clock)


def sentence(name: str, fields: Mapping[str, object]) -> str:
    """Write an event on one line: `name key=value … "text"`; the field `text` comes last and has no key."""
    words = [name]
    words += [f"{key}={_word(key, _text(value))}" for key, value in fields.items() if key != "text"]
    if "text" in fields:
        words.append(_quoted(_text(fields["text"])))
    return " ".join(words)


def escape(text: str) -> str:
    """Write what could end a line or deceive a reader as `\\n`, `\\x1b`, `\\u2028`; a backslash becomes two."""
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def _word(key: str, text: str) -> str:
    if key in _ADDRESSES and _ADDRESS(text):
        return f"<{text}>"
    return text if _BARE(text) else _quoted(text)


def _quoted(text: str) -> str:
    return '"' + escape(text).replace('"', '\\"') + '"'


def _second(now: datetime) -> str:
    return now.isoformat("T", "seconds")[:19]


def _text(value: object) -> str:
    """Give a value as text of at most `MAX_VALUE` characters."""
    if type(value) is str and len(value) <= MAX_VALUE:
        return value
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bytes):
        text = value[: MAX_VALUE + 1].decode("ascii", "backslashreplace")
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float):
        text = f"{value:.3f}"
    elif isinstance(value, _SEVERAL):
        text = ",".join(_text(item) for item in islice(value, MAX_VALUE))
    else:
        text = str(value)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def _json_value(value: object) -> object:
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _text(value)


def _named(fields: dict[str, object]) -> dict[str, object]:
    return {name.rstrip("_"): value for name, value in fields.items() if value is not None}
