"""From the dot to the answer: check a message, hand it on, tell the sender what became of it.

`hand_over` gives the reply to the dot. The order is the order of the code: what nobody could relay, what the checks
found, what never leaves us (discarded mail, loops, mail over a limit), what the next hops say, and what the spool
takes into custody. Custody, once begun, goes through also when the sender goes away.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from forwarder.auth.forged import forged_fields
from forwarder.auth.results import Authentication, authentication_results
from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions, Recipient
from forwarder.model.headers import Header, split_header
from forwarder.model.message import Content, Outgoing, StrippedContent
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.policy import answer
from forwarder.policy.content import marks, objection
from forwarder.ports import EventLog
from forwarder.rewrite import headers, prepare
from forwarder.rules import Discard, Forward, Limit, Place
from forwarder.session.custody import is_owed_report, keep, letter_of
from forwarder.session.examination import Examination
from forwarder.session.gateway import Gateway
from forwarder.session.verdict import judge, told

_LOOP = Reply(554, "5.4.6", "Mail loop: the message was delivered to this address before")
_OVER_LIMIT = Reply(450, "4.7.1", "This address gets more mail than it is set up for: try again later")
_LIMITED = Ruling("limit", Scope.MAILBOX, Fate.NEVER_QUEUE)


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
class Prepared:
    """A message ready to go. `stopped` has an outcome for each delivery that shall not; `limits` count if it goes."""

    message: Outgoing
    stopped: tuple[Outcome | None, ...]
    limits: tuple[Limit, ...]
    received: datetime


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
    prepared = await _prepare(gateway, _cleaned(gateway, arrival, header, found), marks(header), results)
    prepared = replace(prepared, message=replace(prepared.message, authenticated=found.authenticated))
    arrival.transaction.outgoing = prepared.message
    return await _dispatch(gateway, prepared, header, arrival.log)


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


async def _prepare(gateway: Gateway, arrival: Arrival, looping: frozenset[bytes], results: bytes) -> Prepared:
    """Find out where the message goes, with our header lines for each destination, and what never leaves us."""
    transaction = arrival.transaction
    routed: list[prepare.Routed] = []
    stopped: dict[Address, Outcome] = {}
    last: list[prepare.Routed] = []  # where two aliases lead to one mailbox, the one that may go names the delivery
    limits: list[Limit] = []
    for one in transaction.accepted:
        if isinstance(one.decision, Discard):
            arrival.log.event("routed", to=one.recipient.address, destination="discard", rule=places(one.decision.path))
            continue
        way = _routed(one, one.decision, arrival.log)
        if (ours := await _own_outcome(gateway, one.recipient, one.decision, looping)) is not None:
            stopped[one.recipient.address] = ours
            last.append(way)
        else:
            routed.append(way)
            limits += one.decision.limits
    trace = headers.Trace(gateway.settings.hostname, transaction.id, gateway.clock.now(), arrival.hand)
    deliveries = prepare.deliveries(routed + last, trace, results)
    message = Outgoing(
        transaction.id,
        transaction.return_path,
        transaction.sender,
        transaction.options,
        arrival.content,
        deliveries,
    )
    return Prepared(message, tuple(stopped.get(one.recipient) for one in deliveries), tuple(limits), trace.received)


async def _dispatch(gateway: Gateway, prepared: Prepared, header: Header, log: EventLog) -> Reply:
    """Hand the message on, or have it kept; give the reply."""
    for limit in prepared.limits:
        await gateway.limiter.take(limit.key, limit.count, limit.seconds)
    outcomes = await _hand_on(gateway, prepared)
    message = prepared.message
    told = answer.answer(outcomes, message.id, authenticated=message.authenticated)
    reply = told.reply
    if told.keep or is_owed_report(message, outcomes):
        failed = await keep(gateway, letter_of(message, prepared.received, header), outcomes, log)
        reply = failed or reply if told.keep else reply  # a report is no reason to have it all again
    if not reply.positive:
        for limit in prepared.limits:  # only what was forwarded counts, and a retry counts once
            gateway.limiter.give_back(limit.key)
        if any(outcome.verdict in (Verdict.DELIVERED, Verdict.RUNNING) for outcome in outcomes):
            await gateway.courier.unheard(message)  # the sender comes again, also with what has been delivered
    return reply


async def _hand_on(gateway: Gateway, prepared: Prepared) -> Sequence[Outcome]:
    """Offer the message to every destination that is open, or leave that to the spool; give all outcomes."""
    message = prepared.message
    deliveries = zip(message.deliveries, prepared.stopped, strict=True)
    offered = replace(message, deliveries=tuple(one for one, stopped in deliveries if stopped is None))
    found: Iterator[Outcome] = iter(())
    if offered.deliveries and gateway.settings.queue_first and message.authenticated:
        found = iter(await gateway.courier.known(offered))
    elif offered.deliveries:
        deadline = gateway.clock.monotonic() + gateway.settings.cutthrough_deadline
        found = iter(await gateway.courier.hand_on(offered, deadline))
    return [stopped or next(found) for stopped in prepared.stopped]


def _routed(one: Accepted, decision: Forward, log: EventLog) -> prepare.Routed:
    targets = " ".join(str(destination.address) for destination in decision.destinations)
    log.event("routed", to=one.recipient.address, destination=targets, rule=places(decision.path))
    return prepare.Routed(one.recipient, decision.destinations)


async def _own_outcome(
    gateway: Gateway, recipient: Recipient, decision: Forward, looping: frozenset[bytes]
) -> Outcome | None:
    """Decide what never leaves us: loops, mail over a limit."""
    if headers.mark(recipient.address) in looping:
        return Outcome(Verdict.REFUSED, _LOOP)
    if over := await over_limit(gateway, decision):
        return Outcome(Verdict.DEFERRED, over, ruling=_LIMITED)
    return None


async def over_limit(gateway: Gateway, decision: Forward) -> Reply | None:
    """Check the `limit` options of the rules that led here, without counting."""
    for limit in decision.limits:
        if not await gateway.limiter.room(limit.key, limit.count, limit.seconds):
            return _OVER_LIMIT
    return None


def places(path: Sequence[Place]) -> str | None:
    """Write the rules that were followed, for the log; None where there were none."""
    return " ".join(str(place) for place in path) or None
