"""What a next hop's reply means for one recipient: whose fault it is, and what becomes of the message.

A refusal that speaks of us, or that will pass, counts as temporary whatever its code; one that a provider calls
temporary, but that no retry would change, counts as final (`classify`). Where the ruling asks for it the operator is
told, at whichever stage the hop said so and also when another host took the message instead: a block list that only
one of them asks is no less a fault. One alert for each relay and ruling in `ALERT_EVERY` seconds, since such a hop
says it to every message. Pure.
"""

from dataclasses import replace

from forwarder.delivery.classify import classify
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Class
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.ports import Clock, EventLog

ALERT_EVERY = 3600.0  # seconds
_MOST_KNOWN = 10_000  # pairs of relay and ruling
_NEVER_FINAL = (Fate.OURS, Fate.RETRY)
_OF_ONE = (Scope.MESSAGE, Scope.MAILBOX)  # pacing waits for the other scopes


class Judge:
    """Judges outcomes, and remembers what the operator was told of."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[tuple[str, str], float] = {}  # the oldest first

    def judge(self, outcome: Outcome, log: EventLog) -> Outcome:
        """Give the outcome of one recipient at one relay as it is to count, with its ruling."""
        if outcome.verdict is Verdict.DELIVERED or not outcome.remote:
            return outcome
        ruling = classify(outcome.reply, outcome.relay)
        if ruling.alert and self._is_news(outcome.relay, ruling.name):
            text = f"refused because {ruling.text}: {outcome.reply}"
            log.event("alert", component="delivery", relay=outcome.relay, ruling=ruling.name, text=text)
        wait = ruling.pause if ruling.scope in _OF_ONE else 0.0
        return replace(outcome, verdict=_verdict(outcome, ruling), ruling=ruling, wait=max(outcome.wait, wait))

    def _is_news(self, relay: str, name: str) -> bool:
        now = self._clock.monotonic()
        while self._told and (first := next(iter(self._told))) and self._told[first] + ALERT_EVERY <= now:
            del self._told[first]
        if (relay, name) in self._told:
            return False
        if len(self._told) >= _MOST_KNOWN:
            del self._told[next(iter(self._told))]
        self._told[relay, name] = now
        return True


def _verdict(outcome: Outcome, ruling: Ruling) -> Verdict:
    if ruling.fate in _NEVER_FINAL:
        return Verdict.DEFERRED
    # A 5xx before MAIL is a deferral to the client, which may ask another host; only what a host calls temporary turns.
    if ruling.fate is Fate.RETURN and outcome.reply.kind is Class.TEMPORARY:
        return Verdict.REFUSED
    return outcome.verdict
