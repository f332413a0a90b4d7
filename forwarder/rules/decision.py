"""What the rules say about one recipient."""

from dataclasses import dataclass

from forwarder.model.destination import Destination
from forwarder.model.reply import Reply
from forwarder.rules.rule import Place


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` messages in `seconds` for `key`: over it, the session answers 450.

    The key names the rule's pattern and the domain, not its line, so that counting goes on over a reload.
    """

    key: str
    count: int
    seconds: int
    place: Place


@dataclass(frozen=True, slots=True)
class Forward:
    """Hand the message on to every destination (at least one, none twice), if all limits allow it."""

    destinations: tuple[Destination, ...]
    limits: tuple[Limit, ...]
    path: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Refuse the recipient for good: the reply is a 5xx."""

    reply: Reply
    path: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Defer:
    """Refuse the recipient for now: the reply is a 4xx."""

    reply: Reply
    path: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Accept the recipient and throw its copy away."""

    path: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class NotServed:
    """The domain is not one of ours: the rules have nothing to say."""


Decision = Forward | Refuse | Defer | Discard | NotServed
