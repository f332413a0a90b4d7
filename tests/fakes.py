"""Stand-ins for the ports: tables of data, a clock that is told the time, a log that remembers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from forwarder.model.outcome import Outcome
from forwarder.ports import Answer, DnsStatus, EventLog, Held, Load, Mx, Turn


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)) -> None:
        self.time = now
        self.ticks = 1000.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.ticks

    def advance(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        self.ticks += seconds


@dataclass
class FakeResolver:
    """A zone as `{(name, type): [data]}`; data of MX is "10 host". A name that is in no key is NXDOMAIN.

    A name in `failing` never answers. `asked` lists the questions in order.
    """

    zone: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    asked: list[tuple[str, str]] = field(default_factory=list)

    def _look(self, name: str, kind: str) -> tuple[DnsStatus, list[str]]:
        self.asked.append((name, kind))
        if name in self.failing:
            return DnsStatus.FAILED, []
        target = self.zone.get((name, "CNAME"))
        if target and kind != "CNAME":
            return self._look(target[0], kind)
        if records := self.zone.get((name, kind)):
            return DnsStatus.FOUND, records
        exists = any(known == name or known.endswith("." + name) for known, _ in self.zone)
        return (DnsStatus.NODATA if exists else DnsStatus.NXDOMAIN), []

    async def mx(self, name: str) -> Answer[Mx]:
        status, records = self._look(name, "MX")
        pairs = (record.split(" ") for record in records)
        return Answer(status, tuple(Mx(int(n), host.rstrip(".")) for n, host in pairs), _reason(status))

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        status, records = self._look(name, "AAAA" if ipv6 else "A")
        return Answer(status, tuple(records), _reason(status))

    async def txt(self, name: str) -> Answer[bytes]:
        status, records = self._look(name, "TXT")
        return Answer(status, tuple(record.encode() for record in records), _reason(status))

    async def ptr(self, address: str) -> Answer[str]:
        status, records = self._look(ip_address(address).reverse_pointer, "PTR")
        return Answer(status, tuple(records), _reason(status))


def _reason(status: DnsStatus) -> str:
    return "the name server did not answer" if status is DnsStatus.FAILED else ""


class RecordingLog:
    """Keeps events as (name, fields)."""

    def __init__(self, events: list[tuple[str, dict[str, object]]] | None = None, **bound: object) -> None:
        self.events: list[tuple[str, dict[str, object]]] = [] if events is None else events
        self._bound = bound

    def event(self, name: str, /, **fields: object) -> None:
        everything = {**self._bound, **fields}
        self.events.append((name, {key: value for key, value in everything.items() if value is not None}))

    def bind(self, **fields: object) -> EventLog:
        return RecordingLog(self.events, **{**self._bound, **fields})

    def named(self, name: str) -> list[dict[str, object]]:
        """Give the fields of the events of that name."""
        return [fields for event, fields in self.events if event == name]


@dataclass
class FreePacer:
    """Gives every turn at once, but for mailboxes in `held`; remembers loads and what was heard."""

    held: dict[str, Held] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    heard: list[tuple[Turn, list[Outcome]]] = field(default_factory=list)

    async def turn(self, load: Load, until: float) -> Turn:
        self.loads.append(load)
        held = {n: self.held[mailbox] for n, mailbox in enumerate(load.mailboxes) if mailbox in self.held}
        offered = self.turns.pop(0) if self.turns else Turn(len(self.loads), {})
        return replace(offered, number=0 if len(held) == len(load.mailboxes) else offered.number, held=held)

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        self.heard.append((turn, list(outcomes)))
