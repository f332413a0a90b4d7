"""What keeps a load from going though there is room: pauses, and the minute's quota of a mailbox. Pure.

Pauses are of a provider, of one of our addresses, envelope sender domains or original senders there, and of single
mailboxes (`pauses` has their law). A turn with several mailboxes does not say whose refusal is whose: a mailbox is
paused by what its own turn heard, or by one in which all were refused so. Times are monotonic seconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from forwarder.delivery.pauses import Key, Pause, Pauses, wish
from forwarder.delivery.providers import Provider
from forwarder.delivery.quota import SECONDS, Quotas
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.ruling import Scope
from forwarder.ports import Held, Load

_NONE: Mapping[int, Held] = MappingProxyType({})


@dataclass(slots=True)
class Ended:
    """A turn that has ended: what was sent (mailboxes not held), what was heard, when it began."""

    provider: Provider
    load: Load
    sent: Sequence[str]
    outcomes: Sequence[Outcome]
    begun: float

    def keys(self, scope: Scope) -> list[Key]:
        """Give who is meant by a ruling of that scope."""
        if scope is not Scope.MAILBOX:
            return [key for wide, key in _keys(self.provider, self.load) if wide is scope]
        same = len(self.sent) == 1 or len({_tenor(outcome) for outcome in self.outcomes}) == 1
        return [(mailbox,) for mailbox in self.sent] if same else []


class Restraints:
    """Of each kind at most `most` are remembered. `any` says whether there is a pause at all, or may be."""

    def __init__(self, most: int) -> None:
        self.any = False
        self._pauses = {scope: Pauses(most) for scope in Scope}
        self._quotas = Quotas(most)

    def holds(self, provider: Provider, load: Load, now: float) -> tuple[Mapping[int, Held], float]:
        """Give which mailboxes of a load are held, and until when all of them are: in the past if not all are."""
        if not (self.any or provider.per_minute):
            return _NONE, 0.0
        if self.any and (pause := self._pause(provider, load, now)):
            return dict.fromkeys(range(len(load.mailboxes)), pause.held(now)), pause.until
        limits = {i: limit for i, box in enumerate(load.mailboxes) if (limit := self._limit(provider, box, now))}
        if not limits:
            return _NONE, 0.0
        until = min(limit.until for limit in limits.values()) if len(limits) == len(load.mailboxes) else 0.0
        return {i: limit.held(now) for i, limit in limits.items()}, until

    def wide(self, provider: Provider, source: str, now: float) -> float:
        """Give until when a provider, or what one of our addresses sends there, is paused; 0 if it is not."""
        keys = _wide(provider, source)
        return max((p.until for scope, key in keys if (p := self._pauses[scope].get(key, now))), default=0.0)

    def count(self, provider: Provider, load: Load, holds: Mapping[int, Held], now: float) -> None:
        """Count what is about to go against the quotas."""
        if provider.per_minute:
            for index, mailbox in enumerate(load.mailboxes):
                if index not in holds:
                    self._quotas.count(mailbox, provider.per_minute, now)

    def refused(self, ended: Ended, outcome: Outcome, now: float) -> float:
        """Set the pause that an outcome's ruling asks for; give its length in seconds, 0 if there is none."""
        ruling = outcome.ruling
        if ruling is None or ruling.pause <= 0 or not outcome.remote:
            return 0.0
        self.any = True
        store, title = self._pauses[ruling.scope], ended.provider.title
        lengths = [
            store.refused(key, wish(ruling, outcome.reply, title, now), ruling.longest, ended.begun)
            for key in ended.keys(ruling.scope)
        ]
        return max(lengths, default=0.0)

    def succeeded(self, ended: Ended) -> None:
        """After a delivery, forget the pauses that had ended when it began."""
        if not any(outcome.verdict is Verdict.DELIVERED for outcome in ended.outcomes):
            return
        for scope, store in self._pauses.items():
            for key in ended.keys(scope) if store else ():
                store.succeeded(key, ended.begun)
        self.any = any(self._pauses.values())

    def items(self) -> Iterator[tuple[Scope, Key, Pause]]:
        """Give all pauses, also those that have ended and may still be doubled; of each kind the oldest first."""
        return ((scope, key, pause) for scope, store in self._pauses.items() for key, pause in store.items())

    def put(self, scope: Scope, key: Key, pause: Pause) -> None:
        """Keep a pause."""
        self.any = True
        self._pauses[scope].put(key, pause)

    def _pause(self, provider: Provider, load: Load, now: float) -> Pause | None:
        """Give the pause that holds a load as a whole for longest."""
        keys = _keys(provider, load)
        pauses = [pause for scope, key in keys if (pause := self._pauses[scope].get(key, now))]
        return max(pauses, key=lambda pause: pause.until, default=None)

    def _limit(self, provider: Provider, mailbox: str, now: float) -> Pause | None:
        if self.any and (pause := self._pauses[Scope.MAILBOX].get((mailbox,), now)):
            return pause
        most = provider.per_minute
        if most and (free := self._quotas.free(mailbox, most)) > now:
            return Pause(free, SECONDS, f"{provider.title} takes only {most} messages a minute for one mailbox")
        return None


def _keys(provider: Provider, load: Load) -> list[tuple[Scope, Key]]:
    """Give what a load is held by as a whole. Senders that are not known are not one sender."""
    keys = [*_wide(provider, load.source), (Scope.DOMAIN, (provider.name, load.domain))]
    return [*keys, (Scope.SENDER, (provider.name, load.sender))] if load.sender else keys


def _wide(provider: Provider, source: str) -> list[tuple[Scope, Key]]:
    return [(Scope.DESTINATION, (provider.name,)), (Scope.ADDRESS, (provider.name, source))]


def _tenor(outcome: Outcome) -> tuple[Verdict, Scope | None]:
    return outcome.verdict, outcome.ruling.scope if outcome.ruling else None
