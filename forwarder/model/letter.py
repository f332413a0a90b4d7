"""A message in our custody: what the spool holds of it, and how far each of its deliveries has come.

The states of a part and what leads from one to the other stand in `forwarder/README.md`.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from forwarder.model.message import Outgoing


class Kind(Enum):
    """What a letter is, and so who learns of its failure."""

    MAIL = "mail"  # came from a client
    BOUNCE = "bounce"  # a DSN of ours
    NOTICE = "notice"  # of ours to the postmaster


_BOUNCES = "bounces to "  # no domain and no hop begins so


def lane_named(leads_to: str, kind: Kind) -> str:
    """Name the lane of a delivery by its explicit hop, or else its domain.

    Our DSNs have lanes of their own: strangers choose where they go.
    """
    return _BOUNCES + leads_to if kind is Kind.BOUNCE else leads_to


def is_for_bounces(lane: str) -> bool:
    """Say whether a lane has our DSNs."""
    return lane.startswith(_BOUNCES)


class State(Enum):
    """Where one part stands. Only QUEUED and HELD parts need the message any more."""

    QUEUED = "queued"  # to be tried when due
    HELD = "held"  # kept and not tried: the owner is told, the operator decides
    DELIVERED = "delivered"
    BOUNCED = "bounced"  # its sender was sent a DSN
    DELETED = "deleted"  # by the operator
    REPLACED = "replaced"  # a letter of its own carries it on, with a From of ours

    @property
    def final(self) -> bool:
        """Whether nothing more will be done."""
        return self not in (State.QUEUED, State.HELD)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one delivery has come.

    `due` is when to try next, by the time of day: for people, and to go on after a restart. `waited` is for how many
    seconds it has been in the queue as far as a clock that never jumps can tell: expiry counts these. `reply` and
    `relay` are the last words of a next hop or of ours, each on one line. `untold` says of a HELD part that the owner
    has still to be told. `noticed` counts delay notices that went to the sender.
    """

    state: State
    due: datetime | None = None
    attempts: int = 0
    waited: float = 0.0
    reply: str = ""
    relay: str = ""
    untold: bool = False
    noticed: int = 0


@dataclass(frozen=True, slots=True)
class Letter:
    """`message.deliveries` and `progress` go together, one for one. `received` is aware, in UTC.

    `author` names for the owner who wrote it: the From header's address or "", never more than 254 characters.
    `bounceable` says that a DSN may answer it: its sender is who it says, and it is no list mail and no automatic one.
    """

    message: Outgoing
    received: datetime
    progress: tuple[Progress, ...]
    kind: Kind = Kind.MAIL
    bounceable: bool = False
    author: str = ""
    message_id: str = ""  # the header's Message-ID, for the log and for finding it again


@dataclass(frozen=True, slots=True)
class Part:
    """Names one delivery of one letter."""

    id: str
    number: int


@dataclass(frozen=True, slots=True)
class Change:
    """What has become of a part."""

    part: Part
    progress: Progress


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a schedule needs to know of a QUEUED part. `lane` is as `lane_named` gives it."""

    part: Part
    lane: str
    progress: Progress
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """Which letters are asked for: those for which everything given holds, oldest first; nothing given: all.

    `ids` are whole ids or the beginnings of such; `to` is a destination or an address of ours, `domain` the domain of
    either, `sender` the MAIL FROM as received. All compare without case.
    """

    ids: tuple[str, ...] = ()
    to: str = ""
    domain: str = ""
    sender: str = ""
    states: frozenset[State] = field(default_factory=frozenset)
    limit: int = 0  # 0: no limit
