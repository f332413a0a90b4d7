"""What the inner layers ask of the world. Each has a real form in an outer layer and a fake in `tests/fakes.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Protocol, TypeVar

from forwarder.model.envelope import Tls
from forwarder.model.message import Outgoing
from forwarder.model.outcome import Outcome

T = TypeVar("T")


class DnsStatus(Enum):
    """What a DNS question came to. A CNAME chain has been followed before it is told."""

    FOUND = "found"
    NODATA = "no such record"  # the name exists
    NXDOMAIN = "no such name"
    FAILED = "no answer"  # time-out, SERVFAIL, a loop: always temporary


@dataclass(frozen=True, slots=True)
class Mx:
    """One MX record. `host` is lower-case without the root's dot; "" is the null MX (RFC 7505)."""

    preference: int
    host: str


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """`records` is empty unless `status` is FOUND; `reason` is not empty when it is FAILED.

    `secure` is the resolver's AD bit; `ttl` is in seconds.
    """

    status: DnsStatus
    records: tuple[T, ...] = ()
    reason: str = ""
    secure: bool = False
    ttl: int = 0


class Resolver(Protocol):
    """DNS. Names are canonical A-labels without the root's dot. Never raises for what DNS may answer."""

    async def mx(self, name: str) -> Answer[Mx]:
        """Give the MX records, in no particular order."""
        ...

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        """Give the A records, or with `ipv6` the AAAA records, as text."""
        ...

    async def txt(self, name: str) -> Answer[bytes]:
        """Give the TXT records, the strings of each joined."""
        ...

    async def ptr(self, address: str) -> Answer[str]:
        """Give the names that an IP address points to."""
        ...


class Clock(Protocol):
    """Time. `monotonic` is in seconds from an arbitrary start and never goes back."""

    def now(self) -> datetime:
        """Give the time of day, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Give seconds that only grow."""
        ...


class Randomness(Protocol):
    """The part of `random.Random` that we use."""

    def random(self) -> float:
        """Give a number from 0 up to 1."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """Give `k` random bits."""
        ...


class ConnectionLost(Exception):  # noqa: N818 - the field's word for it
    """The connection could not be made, timed out or ended; the text says which, without octets of the peer."""


class TimedOut(ConnectionLost):
    """The peer was too slow."""


class Connection(Protocol):
    """One outgoing connection. Every method raises `ConnectionLost`, and `TimedOut` where time-outs, which are in
    seconds, are the reason."""

    @property
    def tls(self) -> Tls | None:
        """The TLS layer, if there is one."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the peer has closed or sent something unread: where nobody was asked, it cannot be used again."""
        ...

    async def read(self, timeout: float) -> bytes:
        """Give some octets that arrived; b"" once when the peer has closed."""
        ...

    async def write(self, pieces: Iterable[bytes], timeout: float) -> None:
        """Send; the time-out is for each piece to be taken whole, up to a bounded rest that is kept for the peer."""
        ...

    async def start_tls(self, host: str, timeout: float) -> None:
        """Shake hands as a client, `host` as the server name; whatever had been read ahead in clear text is dropped."""
        ...

    async def close(self) -> None:
        """Close without waiting for the peer; never raises."""
        ...


class Dialer(Protocol):
    """Makes connections."""

    async def connect(self, address: str, port: int, *, source: str | None, timeout: float) -> Connection:
        """Connect to an IP address; raise `ConnectionLost`."""
        ...


class Courier(Protocol):
    """Hands messages on."""

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        """Offer to every destination at once; give one outcome per delivery, in their order.

        Returns by `deadline` (seconds by `Clock.monotonic`) at the latest: what is not decided by then is RUNNING.
        Never raises for what a next hop or DNS may do.
        """
        ...

    def unheard(self, message: Outgoing) -> None:
        """Learn that the sender of a message handed on does not know of its success, and will send it again.

        It went away before it could be told, or had to be told of a failure elsewhere. What was delivered of the
        message is answered DELIVERED the next time, without a second copy. Never raises.
        """
        ...


class EventLog(Protocol):
    """Says what happened, one event per stage (names and fields: section 10 of the design).

    Field values may be anything a peer sent: the implementation escapes them. Field names are lower-case.
    """

    def event(self, name: str, /, **fields: object) -> None:
        """Write one event; a value of None leaves its field out."""
        ...

    def bind(self, **fields: object) -> "EventLog":
        """Give a log that adds these fields to every event."""
        ...


class Limiter(Protocol):
    """Counts events per key over a sliding window."""

    def room(self, key: str, limit: int, seconds: int) -> bool:
        """Say whether `take` would succeed now, without counting."""
        ...

    def take(self, key: str, limit: int, seconds: int) -> bool:
        """Count one event; say whether it is within `limit` per `seconds` (if not, it is not counted)."""
        ...

    def give_back(self, key: str) -> None:
        """Take back the latest event that was counted."""
        ...
