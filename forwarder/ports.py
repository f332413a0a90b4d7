"""What the inner layers ask of the world. Each has a real form in an outer layer and a fake in `tests/fakes.py`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Generic, Protocol, TypeVar

from forwarder.model.envelope import Tls
from forwarder.model.letter import Change, Letter, Part, Query, Waiting
from forwarder.model.message import Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply

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
    """Hands messages on while their senders wait."""

    async def hand_on(self, message: Outgoing, deadline: float) -> Sequence[Outcome]:
        """Offer to every destination at once; give one outcome per delivery, in their order.

        Returns by `deadline` (seconds by `Clock.monotonic`) at the latest: what is not decided by then is RUNNING.
        Never raises for what a next hop or DNS may do.
        """
        ...

    async def known(self, message: Outgoing) -> Sequence[Outcome]:
        """Say what was handed on of a message before, without an attempt: one outcome per delivery, or UNTRIED."""
        ...

    def entrust(self, message: Outgoing, settled: Callable[[int, Outcome], None]) -> None:
        """Learn that a message handed on is in the spool's custody, so that its sender was told 250.

        For each delivery that was RUNNING `settled` is called once, with its index and how it ended; never RUNNING.
        """
        ...

    async def unheard(self, message: Outgoing) -> None:
        """Learn that the sender of a message handed on does not know of its success, and will send it again.

        It went away before it could be told, or had to be told to come again. What was delivered of the message, is
        delivered yet by an attempt still RUNNING, or was taken into custody is answered DELIVERED the next time,
        without a second copy; on return that is durable as far as it is known. Never raises.
        """
        ...


class NotKept(Exception):  # noqa: N818 - it says what is the matter
    """Custody was not taken. `reply` is for the sender: temporary, and names nothing of ours."""

    def __init__(self, reply: Reply, reason: str) -> None:
        super().__init__(reason)
        self.reply = reply


class Keeper(Protocol):
    """Takes messages into custody: what could not be handed on at once."""

    def refusal(self) -> Reply | None:
        """Say why no message can be taken now, before it is sent; None while there is room."""
        ...

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        """Take responsibility for all that was not delivered; durable on return. Raises `NotKept`.

        There is one outcome per delivery; the letter's own `progress` does not count. What becomes of each (queued,
        held, bounced) is the keeper's to decide. RUNNING ones are reported by `settled`.
        """
        ...

    def settled(self, part: Part, outcome: Outcome) -> None:
        """Learn how an attempt ended that was RUNNING when its letter was taken. Never raises."""
        ...


class SpoolError(Exception):
    """The spool could not do what was asked; nothing was changed. The text is for the operator's log."""


class SpoolFull(SpoolError):  # noqa: N818 - it says what is the matter
    """There is no room on the disk."""


class Damaged(SpoolError):  # noqa: N818 - it says what is the matter
    """A letter cannot be read whole, or changed; it has been moved to quarantine, and the operator was told."""


class Spool(Protocol):
    """Durable custody of letters. What changes something is durable on return, whole or not at all.

    Every method may raise `SpoolError`. Several machines may share one spool: who works on a part holds a lease.
    """

    async def store(self, letters: Sequence[Letter], changes: Sequence[Change] = ()) -> None:
        """Take letters with the progress that they have, and apply changes to others, in one step.

        A letter all of whose parts are final is done with: it and its content go. A change of one that is not there
        any more raises `Damaged`.
        """
        ...

    async def waiting(self) -> Sequence[Waiting]:
        """Give every QUEUED part."""
        ...

    async def lease(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Give those among them that are QUEUED and that nobody works on; the caller does from now on.

        A lease ends with a change of the part, with `give_back`, or with the process.
        """
        ...

    async def give_back(self, parts: Sequence[Part]) -> None:
        """End leases without a change."""
        ...

    async def fetch(self, id: str) -> Letter | None:
        """Give a letter whole, its content checked; None if there is none. Raises `Damaged`."""
        ...

    def recent(self, id: str) -> Letter | None:
        """Give a letter that was stored here a moment ago, once, as it was given; None where that is not known."""
        ...

    async def find(self, query: Query) -> Sequence[Letter]:
        """Give letters without checking their content.

        It is no snapshot: a long answer is read in slices, between which letters change and go. What came after the
        call may be missing; whoever acts on a letter leases its parts and reads it again.
        """
        ...

    async def ids(self, query: Query) -> Sequence[str]:
        """Give the ids of the letters that `find` would, without reading them: a damaged one may be among them.

        `to`, `domain` and `states` hold of one and the same recipient.
        """
        ...

    async def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep small values under keys; b"" removes. For what must survive a restart and is no letter."""
        ...

    async def memories(self) -> Mapping[bytes, bytes]:
        """Give all that `remember` keeps."""
        ...


@dataclass(frozen=True, slots=True)
class Load:
    """What an attempt is about to send where: what pacing counts by.

    `host` is the name of the mail host (or the address of an explicit hop), `source` the IP address that we send from
    ("" where the system chooses), `domain` that of MAIL FROM as sent ("" for the null sender), `sender` the domain of
    the original sender or "", `mailboxes` the destinations as `local@domain` in canonical form.
    """

    host: str
    source: str
    domain: str
    sender: str
    mailboxes: tuple[str, ...]
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """Not now: `reply` says why in words that can be told to a sender (a 4xx of ours); `seconds` until it may go."""

    reply: Reply
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """A permission to send. `number` names it; 0: none, since every mailbox is held.

    `held` has the mailboxes, by their index in the load, that must be left out now. `messages` is how many messages
    one connection may carry there, 0 for no limit; `secure` says that clear text is out of the question, `apart` that
    each recipient needs a transaction of its own, `ipv4` that only IPv4 is any good.
    """

    number: int
    held: Mapping[int, Held]
    messages: int = 0
    secure: bool = False
    apart: bool = False
    ipv4: bool = False


UNUSED = Outcome(Verdict.UNTRIED, Reply(451, "4.4.0", "not tried yet"))  # what a turn came to that was not used


class Pacer(Protocol):
    """Decides when to send what where: what a provider bears is learnt from what it says."""

    async def turn(self, load: Load, until: float) -> Turn:
        """Wait for a turn, until `until` (by `Clock.monotonic`) at most; what has none by then is held."""
        ...

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        """End a turn with what was heard, in any order; none if the provider was not reached. Never raises.

        `UNUSED` alone says that nobody has tried: nothing is learnt of the provider.
        """
        ...


class Ledger(Protocol):
    """Knows what was handed on, though its sender does not, across processes and restarts. Keys: `delivery.memory`."""

    async def recall(self, keys: Sequence[bytes]) -> Sequence[Outcome | None]:
        """Give for each key the DELIVERED outcome that is known, RUNNING where another process is at it, or None."""
        ...

    async def remember(self, entries: Mapping[bytes, Outcome]) -> None:
        """Keep outcomes; durable on return where there is a spool. Never raises: what cannot be kept is in memory."""
        ...

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what was used up."""
        ...

    def running(self, keys: Sequence[bytes]) -> None:
        """Learn that attempts go on after their senders were told to come again."""
        ...

    def ended(self, keys: Sequence[bytes]) -> None:
        """Learn that they have ended."""
        ...

    async def strike(self, key: bytes) -> int:
        """Count a refusal that speaks of the content; give how many there were of this key in the last hours."""
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
    """Counts events per key over a sliding window, for all processes together."""

    async def room(self, key: str, limit: int, seconds: int) -> bool:
        """Say whether `take` would succeed now, without counting."""
        ...

    async def take(self, key: str, limit: int, seconds: int) -> bool:
        """Count one event; say whether it is within `limit` per `seconds` (if not, it is not counted)."""
        ...

    def give_back(self, key: str) -> None:
        """Take back the latest event that was counted."""
        ...


class Doorkeeper(Protocol):
    """Counts connections for all processes together."""

    async def enter(self, client: str) -> Reply | None:
        """Count a connection from an IP address; or give the reply that refuses it, and do not count it."""
        ...

    def leave(self, client: str) -> None:
        """Stop counting a connection that was let in."""
        ...
