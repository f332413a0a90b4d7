"""What was handed on though its sender does not know: in memory for speed, in the spool so that no restart forgets it.

`LocalLedger` implements `ports.Ledger` for the process that owns the spool. An attempt that goes on after its sender
was told to come again belongs to the process that runs it: others answer RUNNING meanwhile. What the spool cannot keep
stays in memory, and the operator is told.

A retry that asks makes the entry's age anew, on disk as well: see `memory`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from forwarder.delivery.memory import MAX_AGE, MAX_ENTRIES, Key, Memory
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import Clock, EventLog, Spool, SpoolError

_PREFIX = b"handed-on:"  # of our keys in the spool
_STRIKE_AGE = 14_400.0  # seconds
_MOST_STRIKES = 10_000
_RUNNING = Outcome(Verdict.RUNNING, Reply(451, "4.4.7", "an earlier attempt is still under way"))


class _Entry(msgspec.Struct, array_like=True):
    """An outcome as it is kept: `at` is the time of day, in seconds since 1970."""

    at: float
    code: int
    enhanced: str
    text: str
    relay: str
    remote: bool
    tls: str


class LocalLedger:
    """Load it before use. `spool` None: memory only."""

    def __init__(self, clock: Clock, log: EventLog, spool: Spool | None = None, seconds: float = MAX_AGE) -> None:
        self._clock = clock
        self._log = log
        self._spool = spool
        self._memory = Memory(clock, seconds=seconds)
        self._running: dict[bytes, int] = {}  # how many attempts are at it
        self._strikes: dict[bytes, tuple[float, int]] = {}  # when the latest was, and how many

    async def load(self) -> None:
        """Take over what the spool kept; raises `SpoolError`."""
        assert self._spool is not None
        kept = {key: _decoded(octets) for key, octets in (await self._spool.memories()).items() if _is_ours(key)}
        found = sorted(((entry.at, key) for key, entry in kept.items() if entry), reverse=True)[:MAX_ENTRIES]
        for _, key in reversed(found):  # the age begins anew: the time of day may be years off
            entry = kept[key]
            assert entry is not None
            self._memory.put(Key(key.removeprefix(_PREFIX)), _outcome(entry))
        if gone := kept.keys() - {key for _, key in found}:
            await self._spool.remember(dict.fromkeys(gone, b""))

    def keep_for(self, seconds: float) -> None:
        """Let entries reach this age."""
        self._memory.keep_for(seconds)

    async def recall(self, keys: Sequence[bytes]) -> Sequence[Outcome | None]:
        """Give for each key the DELIVERED outcome that is known, RUNNING, or None."""
        known = {key: outcome for key in keys if (outcome := self._memory.get(Key(key)))}
        await self._keep({key: self._encoded(outcome) for key, outcome in known.items()})
        return [known.get(key) or (_RUNNING if key in self._running else None) for key in keys]

    async def remember(self, entries: Mapping[bytes, Outcome]) -> None:
        """Keep outcomes."""
        for key, outcome in entries.items():
            self._memory.put(Key(key), outcome)
        await self._keep({key: self._encoded(outcome) for key, outcome in entries.items()})

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what was used up."""
        known = [key for key in keys if self._memory.forget(Key(key))]
        await self._keep(dict.fromkeys(known, b""))

    def running(self, keys: Sequence[bytes]) -> None:
        """Learn that attempts go on after their senders were told to come again."""
        for key in keys:
            self._running[key] = self._running.get(key, 0) + 1

    def ended(self, keys: Sequence[bytes]) -> None:
        """Learn that they have ended."""
        for key in keys:
            left = self._running.pop(key, 0) - 1
            if left > 0:
                self._running[key] = left

    async def strike(self, key: bytes) -> int:
        """Count a refusal that speaks of the content; give how many there were of this key in the last hours."""
        now = self._clock.monotonic()
        at, count = self._strikes.pop(key, (now, 0))
        count = count + 1 if now - at < _STRIKE_AGE else 1
        self._strikes[key] = (now, count)
        if len(self._strikes) > _MOST_STRIKES:
            del self._strikes[next(iter(self._strikes))]
        return count

    def _encoded(self, outcome: Outcome) -> bytes:
        reply = outcome.reply
        at = self._clock.now().astimezone(UTC).timestamp()
        entry = _Entry(at, reply.code, reply.enhanced, reply.text, outcome.relay, outcome.remote, outcome.tls)
        return msgspec.msgpack.encode(entry)

    async def _keep(self, entries: Mapping[bytes, bytes]) -> None:
        if self._spool is None or not entries:
            return
        try:
            await self._spool.remember({_PREFIX + key: octets for key, octets in entries.items()})
        except SpoolError as error:
            self._log.event("alert", component="spool", text=f"what was handed on is not on disk: {error}")


def _is_ours(key: bytes) -> bool:
    return key.startswith(_PREFIX)


def _decoded(octets: bytes) -> _Entry | None:
    try:
        entry = msgspec.msgpack.decode(octets, type=_Entry)
        datetime.fromtimestamp(entry.at, UTC)
    except (msgspec.MsgspecError, ValueError, OverflowError, OSError):
        return None
    return entry


def _outcome(entry: _Entry) -> Outcome:
    reply = Reply(entry.code, entry.enhanced, entry.text)
    return Outcome(Verdict.DELIVERED, reply, entry.relay, remote=entry.remote, tls=entry.tls)
