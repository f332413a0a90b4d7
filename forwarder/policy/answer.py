"""What the sender is told after the dot, and whether the spool takes over: the table of section 3 of the design.

| by the deadline | authenticated sender | anyone else |
|---|---|---|
| all delivered, or discarded by a rule | 250 | 250 |
| some delivered, the rest not | 250, the spool takes the rest | 250, the spool takes the rest |
| none delivered, all refused for good | that 5xx | that 5xx |
| none delivered, anything still open | 250, the spool takes all | 451 |
| none delivered, and a temporary refusal speaks of the content | 451 | 451 |

What the spool makes of what it takes (try again, a DSN, a notice to the owner) is its own business (`delivery`). The
last row is ours: what a provider finds suspicious is its sender's to try again, and no queue of ours repeats it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Class, Reply
from forwarder.model.ruling import Fate

_QUOTED = 4  # replies quoted in one answer; the log has them all
_OPEN = (Verdict.DEFERRED, Verdict.RUNNING, Verdict.UNTRIED)


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to the dot. With `keep` it holds only once the spool has taken what was not delivered."""

    reply: Reply
    keep: bool = False


def answer(outcomes: Sequence[Outcome], message_id: str, *, authenticated: bool = False) -> Answer:
    """Decide. What a rule discarded is delivered to nobody: it is fine with every answer."""
    open_ones = [o for o in outcomes if o.verdict in _OPEN]
    refused = [o for o in outcomes if o.verdict is Verdict.REFUSED]
    delivered = any(o.verdict is Verdict.DELIVERED and o.remote for o in outcomes)
    if not open_ones and not refused:
        return Answer(Reply(250, "2.0.0", f"{'Forwarded' if delivered else 'Accepted'}, id {message_id}"))
    if delivered:
        return Answer(Reply(250, "2.0.0", f"Forwarded to some, the rest is in our care, id {message_id}"), keep=True)
    if not open_ones:
        return Answer(_permanent(refused, message_id))
    if authenticated and not any(_suspicious(outcome) for outcome in open_ones):
        return Answer(Reply(250, "2.0.0", f"Queued, id {message_id}"), keep=True)
    return Answer(temporary(open_ones, message_id))


def temporary(outcomes: Sequence[Outcome], message_id: str) -> Reply:
    """Give the reply that asks the sender to come again."""
    reply = outcomes[0].reply
    enhanced = reply.enhanced if reply.enhanced.startswith("4.") else "4.4.0"
    return Reply(451, enhanced, f"Not forwarded yet, try again later, id {message_id}\n{_quote(outcomes)}")


def _suspicious(outcome: Outcome) -> bool:
    return outcome.ruling is not None and outcome.ruling.fate is Fate.NEVER_QUEUE


def _permanent(outcomes: Sequence[Outcome], message_id: str) -> Reply:
    replies = {(o.reply.code, o.reply.enhanced) for o in outcomes}
    code, enhanced = next(iter(replies)) if len(replies) == 1 else (554, "5.0.0")
    if code // 100 != Class.PERMANENT.value:
        code, enhanced = 554, "5.0.0"
    if not enhanced.startswith("5."):  # RFC 2034 4: the class of both codes must agree
        enhanced = "5.0.0"
    return Reply(code, enhanced, f"Refused, id {message_id}\n{_quote(outcomes)}")


def _quote(outcomes: Sequence[Outcome]) -> str:
    return "\n".join(_one(outcome) for outcome in outcomes[:_QUOTED])


def _one(outcome: Outcome) -> str:
    if outcome.verdict is Verdict.RUNNING:
        return "The next hop has not answered in time"
    if outcome.remote:
        return f"{outcome.relay} said: {outcome.reply}"
    return outcome.reply.text
