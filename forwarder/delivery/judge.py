"""What a next hop's reply means once it is known whose fault it is: ours must not look like the sender's.

A refusal that speaks of us (`classify`) counts as temporary, and the operator is told, at whichever stage the hop said
so and also when another host took the message instead: a block list that only one of them asks is no less a fault. One
alert for each relay and reason in `ALERT_EVERY` seconds, since such a hop says it to every message. Pure.
"""

from dataclasses import replace

from forwarder.delivery.classify import our_fault
from forwarder.model.outcome import Outcome, Verdict
from forwarder.ports import Clock, EventLog

ALERT_EVERY = 3600.0  # seconds
_MOST_KNOWN = 10_000  # pairs of relay and reason


class Judge:
    """Judges outcomes, and remembers what the operator was told of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}  # the oldest first

    def judge(self, outcome: Outcome, log: EventLog) -> Outcome:
        """Give the outcome of one recipient at one relay as it is to count."""
        if outcome.verdict is Verdict.DELIVERED or not outcome.remote or not (reason := our_fault(outcome.reply)):
            return outcome
        if self._is_news(outcome.relay, reason):
            text = f"refused because {reason}: {outcome.reply}"
            log.event("alert", component="delivery", relay=outcome.relay, text=text)
        return replace(outcome, verdict=Verdict.DEFERRED)

    def _is_news(self, relay: str, reason: str) -> bool:
        now = self._clock.monotonic()
        while self._told and (first := next(iter(self._told))) and self._told[first] + ALERT_EVERY <= now:
            del self._told[first]
        if (relay, reason) in self._told:
            return False
        if len(self._told) >= _MOST_KNOWN:
            del self._told[next(iter(self._told))]
        self._told[relay, reason] = now
        return True
