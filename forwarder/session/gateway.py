"""What a session works with: the rules, secrets and limits as they were when it began, and the ports.

A reload makes a new `Gateway`; sessions keep the one that they were given.
"""

from dataclasses import dataclass, field

from forwarder.model.address import Address
from forwarder.model.ids import RANDOM_BITS, message_id
from forwarder.policy.content import ContentLimits
from forwarder.ports import Clock, Courier, EventLog, Keeper, Limiter, Randomness, Resolver
from forwarder.rewrite.srs import Srs
from forwarder.rules import RuleSet
from forwarder.session.examination import Checks

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Settings:
    """Who we are and how far we go. Sizes in octets, `cutthrough_deadline` in seconds.

    With `queue_first` a message of an authenticated sender goes to the spool before any next hop is asked.
    """

    hostname: str
    postmaster: Address
    message_size: int = 50_000_000
    recipients: int = 100
    cutthrough_deadline: float = 25.0
    content: ContentLimits = field(default_factory=ContentLimits)
    checks: Checks = field(default_factory=Checks)
    queue_first: bool = False


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that a session needs."""

    settings: Settings
    rules: RuleSet
    srs: Srs
    courier: Courier
    keeper: Keeper
    resolver: Resolver
    limiter: Limiter
    clock: Clock
    randomness: Randomness
    log: EventLog

    def new_id(self) -> str:
        """Make an id for a message."""
        return message_id(self.clock.now(), self.randomness.getrandbits(RANDOM_BITS))

    @property
    def day(self) -> int:
        """Days since 1970-01-01, for SRS."""
        return int(self.clock.now().timestamp()) // _DAY
