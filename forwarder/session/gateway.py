"""What a session works with: the rules, secrets and limits as they were when it began, and the ports.

A reload makes a new `Gateway`; sessions keep the one that they were given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forwarder.model.address import Address
from forwarder.model.ids import RANDOM_BITS, message_id
from forwarder.policy.content import ContentLimits
from forwarder.policy.rewriting import Wishes
from forwarder.ports import Clock, Courier, EventLog, Keeper, Limiter, Randomness, Resolver
from forwarder.rewrite.signing_key import SigningKey
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
    rewriting: Wishes = field(default_factory=Wishes)
    queue_first: bool = False


@dataclass(frozen=True, slots=True)
class Signing:
    """What we sign with: keys by domain, RSA first; `fallback` signs for domains that have none of their own."""

    keys: Mapping[str, tuple[SigningKey, ...]] = field(default_factory=dict)
    fallback: tuple[SigningKey, ...] = ()
    sign: bool = True
    seal: bool = True

    def of(self, domain: str) -> tuple[SigningKey, ...]:
        """Give the keys for mail that came to a domain."""
        return self.keys.get(domain, self.fallback)

    def near(self, name: str) -> tuple[SigningKey, ...]:
        """Give the keys of a name or of the nearest domain above it that has some."""
        while name and name not in self.keys:
            name = name.partition(".")[2]
        return self.keys.get(name, self.fallback)


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
    signing: Signing = field(default_factory=Signing)

    def new_id(self) -> str:
        """Make an id for a message."""
        return message_id(self.clock.now(), self.randomness.getrandbits(RANDOM_BITS))

    @property
    def day(self) -> int:
        """Days since 1970-01-01, for SRS."""
        return int(self.clock.now().timestamp()) // _DAY
