"""What the big receivers are known to bear, as data. Pure.

Sources: their postmaster pages (Google's sender guidelines: 60 messages a minute to one mailbox, of which we use 50;
Yahoo: 20 messages over a connection; Apple: 5). Numbers that they do not publish are cautious guesses; what a provider
really bears is learnt from what it says (`pacing`). A provider's name is what `provider_of` gives for its mail hosts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

FIRST = 5  # turns at once to a known provider, to begin with: what Google advises


@dataclass(frozen=True, slots=True)
class Provider:
    """`title` is how people call it. In the rest 0 means no limit of its own.

    `connections` are turns at once from one of our addresses, `messages` those over one connection, `per_minute` those
    to one mailbox in 60 seconds.
    """

    name: str
    title: str
    connections: int = 0
    messages: int = 0
    per_minute: int = 0


_PROVIDERS = (
    Provider("google", "Gmail", 20, 50, 50),
    Provider("microsoft", "Outlook", 10, 50),
    Provider("yahoo", "Yahoo", 10, 20),
    Provider("apple", "iCloud", 10, 5),
)
KNOWN: Mapping[str, Provider] = MappingProxyType({provider.name: provider for provider in _PROVIDERS})


@dataclass(frozen=True, slots=True)
class PacingSettings:
    """`per_destination` is how many turns at once a provider gets that has no number of its own.

    Where it is below `FIRST` it bounds all of them. Of each kind of thing at most `keys` are remembered.
    """

    per_destination: int = FIRST
    providers: Mapping[str, Provider] = field(default_factory=lambda: KNOWN)
    keys: int = 10_000

    def provider(self, name: str) -> Provider:
        """Give what is known of a provider."""
        return self.providers.get(name) or Provider(name, name)

    def window(self, name: str) -> tuple[int, int]:
        """Give how many turns at once it gets to begin with, and at most."""
        own = self.provider(name).connections
        most = own if own and self.per_destination >= FIRST else self.per_destination
        return (min(FIRST, most) if own else most), most
