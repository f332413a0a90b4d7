"""What all parts of one run share: time, randomness by purpose, the record of what happened, and the plan of faults."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

from forwarder.ports import EventLog
from tests.simulation.loop import Process, VirtualLoop

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


@dataclass(eq=False)
class Copy:
    """One recipient of one message that a next hop took. `process` is the gateway that sent it.

    `sent` is when the dot arrived, `at` when the hop took it, `heard` when the gateway read the 250, `over` when it
    closed the connection without. `forgotten` says that the gateway ended before it could record this.
    """

    to: str
    octets: bytes
    sent: float
    at: float
    process: Process
    hop: str
    over: float | None = None
    heard: float | None = None
    forgotten: bool = False
    transaction: str = ""
    token: str = ""


@dataclass
class World:
    """`trace` gets (seconds, text) where the story is wanted. `broken` has the promises that were broken."""

    seed: int
    loop: VirtualLoop
    tracing: bool = False
    trace: list[tuple[float, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    refusals: dict[str, float] = field(default_factory=dict)  # who was refused for good, by destination: when last
    expired: list[tuple[float, str]] = field(default_factory=list)  # when, and the letter's id
    alerts: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    on_alert: Callable[[str], None] = lambda _: None
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def random(self, purpose: str) -> Random:
        """Give randomness that no other purpose draws from."""
        return Random(f"{self.seed}:{purpose}")

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return self.loop.seconds

    def tell(self, text: str) -> None:
        """Tell the story."""
        self.digest.update(f"{self.loop.seconds:.6f} {text}\n".encode())
        if self.tracing:
            self.trace.append((self.loop.seconds, text))

    def breaks(self, text: str) -> None:
        """Note a promise that was broken."""
        if text not in self.broken:
            self.broken.append(text)
            self.tell(f"BROKEN: {text}")

    def count(self, what: str) -> None:
        """Count, so that it is known what the seeds reach."""
        self.counts[what] = self.counts.get(what, 0) + 1


class WorldClock:
    """A machine's clock. `jumps` are (world seconds, seconds by which the time of day changes); `boot` is when its
    monotonic seconds began."""

    def __init__(self, world: World, jumps: list[tuple[float, float]], boot: float) -> None:
        self._world = world
        self._jumps = jumps
        self._boot = boot

    def now(self) -> datetime:
        seconds = self._world.now
        off = sum(by for at, by in self._jumps if at <= seconds)
        return START + timedelta(seconds=seconds + off)

    def monotonic(self) -> float:
        return self._world.now - self._boot


class WorldLog:
    """Keeps alerts, and tells events as part of the story."""

    def __init__(self, world: World, process: Process, bound: dict[str, object]) -> None:
        self._world = world
        self._process = process
        self._bound = bound

    def event(self, name: str, /, **fields: object) -> None:
        if self._process.dead:
            return
        if name == "alert":
            text = " ".join(str(fields[key]) for key in ("text", "reason") if key in fields)
            self._world.alerts.append(text)
            self._world.on_alert(text)
        if name == "expired":
            self._world.expired.append((self._world.now, str(fields["id"])))
        if name not in ("connect", "authenticated", "routed"):
            every = {**self._bound, **fields}
            words = " ".join(f"{key}={value}" for key, value in every.items() if value is not None)
            self._world.tell(f"  [{self._process.number}] {name} {words}")

    def bind(self, **fields: object) -> EventLog:
        return WorldLog(self._world, self._process, {**self._bound, **fields})
