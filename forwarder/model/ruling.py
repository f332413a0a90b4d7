"""What a next hop's refusal means: whom it speaks of, what becomes of the message, and for how long to stay away.

`delivery.classify` makes a `Ruling` of a reply; the answer to the sender, the queue and pacing act on it.
"""

from dataclasses import dataclass
from enum import Enum


class Scope(Enum):
    """Whom a refusal speaks of, and so what is left alone because of it."""

    MESSAGE = "message"  # this one
    MAILBOX = "mailbox"  # the destination's mailbox
    DESTINATION = "destination"  # the whole provider
    ADDRESS = "our address"  # the IP address that we send from, at this provider
    DOMAIN = "our domain"  # the DKIM or SRS domain that we send under, at this provider
    SENDER = "sender"  # the original sender, at this provider


class Fate(Enum):
    """What becomes of the recipient."""

    RETRY = "retry"  # temporary: queued where that is allowed
    RETURN = "return"  # for good: the sender is told
    OURS = "ours"  # a fault of ours or of our address: queued and never bounced before it expires; the operator is told
    NEVER_QUEUE = "never queue"  # temporary, but of the message's content: told to the sender each time, never queued
    HOLD = "hold"  # the destination is dead or full: told to a sender who waits; what was accepted is held


@dataclass(frozen=True, slots=True)
class Ruling:
    """`name` is a word for logs ("throttled", "blocked", …); `text` says in plain words what is wrong.

    `pause` is how long `scope` is left alone, in seconds, 0 not at all; it doubles with each further refusal up to
    `longest`. `alert` says that the operator is told. `split` asks for one recipient in each transaction, `secure` for
    TLS at this provider, and `elsewhere` for another source address (IPv4 in place of IPv6).
    """

    name: str
    scope: Scope
    fate: Fate
    text: str = ""
    pause: float = 0.0
    longest: float = 0.0
    alert: bool = False
    split: bool = False
    secure: bool = False
    elsewhere: bool = False

    @property
    def by_dmarc(self) -> bool:
        """Whether DMARC has failed there: with a From of ours it may pass."""
        return self.name in ("dmarc", "alignment")


TEMPORARY = Ruling("temporary", Scope.MESSAGE, Fate.RETRY)
PERMANENT = Ruling("permanent", Scope.MESSAGE, Fate.RETURN)
