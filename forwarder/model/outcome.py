"""What became of one destination of one message in one attempt."""

from dataclasses import dataclass
from enum import Enum

from forwarder.model.reply import Reply
from forwarder.model.ruling import Ruling


class Verdict(Enum):
    """How an attempt ended for one destination."""

    DELIVERED = "delivered"  # the next hop took responsibility: 250 after the dot
    REFUSED = "refused"  # a permanent refusal: trying again would not help
    DEFERRED = "deferred"  # a temporary refusal, or nobody could be asked
    RUNNING = "running"  # the deadline came first; the attempt goes on and may yet deliver
    UNTRIED = "untried"  # no attempt was made: the spool makes the first


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reply` is the next hop's own where `remote`, otherwise one of ours that says what went wrong: never empty.

    `relay` names who was asked, as `host[ip]:port`; "" when nobody was reached. `tls` is "" for clear text, otherwise
    the protocol version. `ruling` says what a refusal means; None for the rest, and where only the code counts.
    `wait` is how many seconds it makes no sense to try again, 0 where nothing is known. `notifies` says that the next
    hop took the sender's DSN wishes over (RFC 3461 5.2.1).
    """

    verdict: Verdict
    reply: Reply
    relay: str = ""
    remote: bool = False
    tls: str = ""
    ruling: Ruling | None = None
    wait: float = 0.0
    notifies: bool = False


LOCAL_FAULT = Outcome(Verdict.DEFERRED, Reply(451, "4.3.0", "the message could not be handed on for a local reason"))
