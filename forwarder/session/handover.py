"""From the dot to the answer: check a message, hand it on, tell the sender what became of it.

`hand_over` gives the reply to the dot. The order is the order of the code: what nobody could relay, what the checks
found, what never leaves us (discarded mail, loops, mail over a limit), what the next hops say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from forwarder.auth.forged import forged_fields
from forwarder.auth.results import Authentication, authentication_results
from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions, Recipient
from forwarder.model.headers import Header, split_header
from forwarder.model.message import Content, Outgoing, StrippedContent
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.policy import answer
from forwarder.policy.content import marks, objection
from forwarder.ports import EventLog
from forwarder.rewrite import headers, prepare
from forwarder.rules import Discard, Forward, Limit, Place
from forwarder.session.examination import Examination
from forwarder.session.gateway import Gateway
from forwarder.session.verdict import judge, told

_LOOP = Reply(554, "5.4.6", "Mail loop: the message was delivered to this address before")
_OVER_LIMIT = Reply(450, "4.7.1", "This address gets more mail than it is set up for: try again later")


@dataclass(slots=True)
class Accepted:
    """A recipient that was answered 250, and what the rules said of it."""

    recipient: Recipient
    decision: Forward | Discard


@dataclass(slots=True)
class Transaction:
    """From MAIL to the reply to the dot. `return_path` is the rewritten sender; `asked` counts RCPT commands."""

    id: str
    sender: Address | None
    return_path: Address | None
    options: MailOptions
    log: EventLog
    accepted: list[Accepted] = field(default_factory=list)
    asked: int = 0
    examination: Examination | None = None
    outgoing: Outgoing | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that has come in whole, with its envelope and how it came. The name in `hand` is not known yet."""

    transaction: Transaction
    hand: headers.Hand
    content: Content
    log: EventLog


async def hand_over(gateway: Gateway, arrival: Arrival) -> Reply:
    """Give the reply to the dot."""
    examination = arrival.transaction.examination
    assert examination is not None
    head = arrival.content.head(gateway.settings.content.header_size + 1)
    header = examination.header or split_header(head)
    if reply := objection(head, header, gateway.settings.content):
        examination.cancel()
        return reply
    found = await examination.finish()
    verdict = judge(gateway.settings.checks, found)
    arrival.log.event("authenticated", **told(found, verdict), own=_own_domain(gateway, found))
    if verdict.reply is not None:
        return verdict.reply
    results = authentication_results(gateway.settings.hostname, found, verdict.disposition.value)
    outcomes = await _hand_on(gateway, _cleaned(gateway, arrival, header, found), marks(header), results)
    return answer.answer(outcomes, arrival.transaction.id)


def _own_domain(gateway: Gateway, found: Authentication) -> str | None:
    """Name the domain of ours that a message from outside says to be from: worth a look where it is no DMARC pass."""
    claimed = [found.dmarc.from_domain] if found.dmarc else []
    claimed += [found.sender.domain] if found.sender else []
    return next((domain for domain in claimed if domain in gateway.rules.domains), None)


def _cleaned(gateway: Gateway, arrival: Arrival, header: Header, found: Authentication) -> Arrival:
    """Take out what claims to be our word, and put in the name that the client was found to have."""
    ranges = forged_fields(header, gateway.settings.hostname)
    if ranges:
        arrival.log.event("cleaned", fields=len(ranges), text="forged Authentication-Results of ours were removed")
    content = StrippedContent(arrival.content, ranges) if ranges else arrival.content
    name = found.iprev.name if found.iprev else ""
    return replace(arrival, content=content, hand=replace(arrival.hand, name=name))


async def _hand_on(gateway: Gateway, arrival: Arrival, looping: frozenset[bytes], results: bytes) -> Sequence[Outcome]:
    """Offer the message to every destination; give their outcomes, and ours for recipients that get none."""
    deadline = gateway.clock.monotonic() + gateway.settings.cutthrough_deadline
    transaction = arrival.transaction
    outcomes: list[Outcome] = []
    routed: list[prepare.Routed] = []
    counted: list[Limit] = []
    for one in transaction.accepted:
        if (ours := await _own_outcome(gateway, one, looping, arrival.log)) is not None:
            outcomes.append(ours)
        elif isinstance(one.decision, Forward):
            routed.append(_routed(one, one.decision, arrival.log))
            counted += await _counted(gateway, one.decision)
    if routed:
        trace = headers.Trace(gateway.settings.hostname, transaction.id, gateway.clock.now(), arrival.hand)
        outgoing = Outgoing(
            transaction.id,
            transaction.return_path,
            transaction.sender,
            transaction.options,
            arrival.content,
            prepare.deliveries(routed, trace, results),
        )
        transaction.outgoing = outgoing
        outcomes.extend(await gateway.courier.hand_on(outgoing, deadline))
    verdicts = {outcome.verdict for outcome in outcomes}
    if verdicts - {Verdict.DELIVERED}:
        for limit in counted:  # only what was forwarded counts, and a retry counts once
            gateway.limiter.give_back(limit.key)
    if verdicts & {Verdict.DEFERRED, Verdict.RUNNING} and transaction.outgoing is not None:
        gateway.courier.unheard(transaction.outgoing)  # it knows only of its own outcomes, and the sender comes again
    return outcomes


def _routed(one: Accepted, decision: Forward, log: EventLog) -> prepare.Routed:
    targets = " ".join(str(destination.address) for destination in decision.destinations)
    log.event("routed", to=one.recipient.address, destination=targets, rule=places(decision.path))
    return prepare.Routed(one.recipient, decision.destinations)


async def _own_outcome(gateway: Gateway, one: Accepted, looping: frozenset[bytes], log: EventLog) -> Outcome | None:
    """Decide what never leaves us: discarded mail (which counts as delivered), loops, mail over a limit."""
    if isinstance(one.decision, Discard):
        log.event("routed", to=one.recipient.address, destination="discard", rule=places(one.decision.path))
        return Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "Discarded by a rule"))
    if headers.mark(one.recipient.address) in looping:
        return Outcome(Verdict.REFUSED, _LOOP)
    if over := await over_limit(gateway, one.decision):
        return Outcome(Verdict.DEFERRED, over)
    return None


async def over_limit(gateway: Gateway, decision: Forward) -> Reply | None:
    """Check the `limit` options of the rules that led here, without counting."""
    for limit in decision.limits:
        if not await gateway.limiter.room(limit.key, limit.count, limit.seconds):
            return _OVER_LIMIT
    return None


async def _counted(gateway: Gateway, decision: Forward) -> Sequence[Limit]:
    """Count a message that is about to be handed on."""
    for limit in decision.limits:
        await gateway.limiter.take(limit.key, limit.count, limit.seconds)
    return decision.limits


def places(path: Sequence[Place]) -> str | None:
    """Write the rules that were followed, for the log; None where there were none."""
    return " ".join(str(place) for place in path) or None
