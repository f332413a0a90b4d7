"""What an outcome says about our pace. Pure; the meaning of replies in general is `classify`'s."""

import re

from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope

# RFC 3463 3.5 has X.4.5 for congestion; X.7.28 is a mail flood in IANA's registry.
_CODES = frozenset({"4.4.5", "4.7.28"})
_WORDS = re.compile(
    r"too many (\w+ ){0,3}(connections|sessions|messages)|rate.?limit|throttl|slow(er|ing)? down|too (fast|quickly)",
    re.I,
)
# Of how many there are at once; Postfix says "Connection rate limit exceeded" of the other.
_AT_ONCE = re.compile(r"too many (\w+ ){0,3}(connections|sessions)", re.I)
_IN_TIME = re.compile(r"\brates?\b|throttl|slow(er|ing)? down|too (fast|quickly)|\b(per|in the last|within)\b", re.I)
_READ = 1000  # characters
_WIDE = (Scope.ADDRESS, Scope.DESTINATION)


def throttles(outcome: Outcome) -> bool:
    """Say whether the provider finds that we send too fast, or too much at once, from this address."""
    if outcome.verdict is not Verdict.DEFERRED or not outcome.remote:
        return False
    ruling = outcome.ruling
    if ruling is None or (ruling.scope is Scope.MESSAGE and not ruling.pause):
        return _congested(outcome.reply)
    if ruling.scope not in _WIDE or ruling.fate is not Fate.RETRY:
        return False
    return ruling.pause > 0 or _congested(outcome.reply)


def is_of_connections(outcome: Outcome) -> bool:
    """Say of an outcome that throttles whether it speaks of connections at once, and of nothing else."""
    said = outcome.reply.text[:_READ]
    return _AT_ONCE.search(said) is not None and _IN_TIME.search(said) is None


def is_lesson(ruling: Ruling, *, secure: bool, apart: bool, ipv4: bool) -> bool:
    """Say whether a ruling asks for another way of sending than the one that was taken: it calls for no pause then."""
    return (ruling.secure and not secure) or (ruling.split and not apart) or (ruling.elsewhere and not ipv4)


def _congested(reply: Reply) -> bool:
    return reply.enhanced in _CODES or _WORDS.search(reply.text[:_READ]) is not None
