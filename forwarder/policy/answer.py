"""What the sender is told after the dot: the table of section 3 of the design, as a function of the outcomes.

Until there is a spool, its column reads 451: nothing is acknowledged that was not handed on. "Some accepted, the rest
refused for good" is answered with that refusal: the sender's own server then tells the sender, as a DSN of ours
would, and what was accepted is not sent twice.
"""

from collections.abc import Sequence

from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Class, Reply

_QUOTED = 4  # replies quoted in one answer; the log has them all


def answer(outcomes: Sequence[Outcome], message_id: str) -> Reply:
    """Decide the reply to the dot. What was discarded counts as delivered, by nobody."""
    open_ones = [o for o in outcomes if o.verdict in (Verdict.DEFERRED, Verdict.RUNNING)]
    refused = [o for o in outcomes if o.verdict is Verdict.REFUSED]
    if open_ones:
        return _temporary(open_ones, message_id)
    if refused:
        return _permanent(refused, partly=len(refused) < len(outcomes), message_id=message_id)
    forwarded = any(outcome.remote for outcome in outcomes)
    return Reply(250, "2.0.0", f"{'Forwarded' if forwarded else 'Accepted'}, id {message_id}")


def _temporary(outcomes: Sequence[Outcome], message_id: str) -> Reply:
    reply = outcomes[0].reply
    enhanced = reply.enhanced if reply.enhanced.startswith("4.") else "4.4.0"
    return Reply(451, enhanced, f"Not forwarded yet, try again later, id {message_id}\n{_quote(outcomes)}")


def _permanent(outcomes: Sequence[Outcome], *, partly: bool, message_id: str) -> Reply:
    replies = {(o.reply.code, o.reply.enhanced) for o in outcomes}
    code, enhanced = next(iter(replies)) if len(replies) == 1 else (554, "5.0.0")
    if code // 100 != Class.PERMANENT.value:
        code, enhanced = 554, "5.0.0"
    if not enhanced.startswith("5."):  # RFC 2034 4: the class of both codes must agree
        enhanced = "5.0.0"
    opening = "Refused for one of several destinations" if partly else "Refused"
    return Reply(code, enhanced, f"{opening}, id {message_id}\n{_quote(outcomes)}")


def _quote(outcomes: Sequence[Outcome]) -> str:
    return "\n".join(_one(outcome) for outcome in outcomes[:_QUOTED])


def _one(outcome: Outcome) -> str:
    if outcome.verdict is Verdict.RUNNING:
        return "The next hop has not answered in time"
    if outcome.remote:
        return f"{outcome.relay} said: {outcome.reply}"
    return outcome.reply.text
