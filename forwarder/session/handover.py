"""From the dot to the answer: check a message, hand it on, tell the sender what became of it.

`hand_over` gives the reply to the dot. The order is the order of the code: what nobody could relay, what the checks
found, what never leaves us (discarded mail, loops, mail over a limit), what the next hops say, and what the spool
takes into custody. Custody, once begun, goes through also when the sender goes away.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from forwarder.auth.forged import forged_fields
from forwarder.auth.results import Authentication, authentication_results
from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions, Recipient
from forwarder.model.headers import Header, split_header
from forwarder.model.message import Content, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.policy import answer
from forwarder.policy.content import marks, objection
from forwarder.policy.rewriting import Rewriting
from forwarder.ports import EventLog
from forwarder.rewrite import headers, prepare
from forwarder.rules import Discard, Forward, Limit, Place
from forwarder.session.custody import has_gone_out, is_owed_report, keep, letter_of, note_unheard
from forwarder.session.departure import Departure, Evidence, Prospect, Ranges
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
    """A message that is ready. `stopped` has the outcome for each alias that gets none; `limits` count if it goes."""

    departure: Departure
    stopped: Mapping[Address, Outcome]
    limits: tuple[Limit, ...]
    received: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A message that was offered, and what came of it, one outcome for each delivery."""

    message: Outgoing
    outcomes: Sequence[Outcome]

    @property
    def done(self) -> bool:
        """Whether all of it was delivered."""
        return all(outcome.verdict is Verdict.DELIVERED for outcome in self.outcomes)


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
    arrival = replace(arrival, hand=replace(arrival.hand, name=found.iprev.name if found.iprev else ""))
    results = authentication_results(gateway.settings.hostname, found, verdict.disposition.value)
    forged = _forged(gateway, header, arrival.log)
    evidence = Evidence(arrival.content, header, found, examination.candidates, examination.body_hash, forged, results)
    prepared = await _prepare(gateway, arrival, evidence)
    departure = prepared.departure
    arrival.transaction.outgoing = departure.whole
    _note_foresight(departure, arrival.log)
    refused = departure.refused
    if refused and all(each.recipient in refused for each in departure.deliveries):
        return next(iter(refused.values()))
    return await _dispatch(gateway, prepared, header, arrival.log)


def _own_domain(gateway: Gateway, found: Authentication) -> str | None:
    """Name the domain of ours that a message from outside says to be from: worth a look where it is no DMARC pass."""
    claimed = [found.dmarc.from_domain] if found.dmarc else []
    claimed += [found.sender.domain] if found.sender else []
    return next((domain for domain in claimed if domain in gateway.rules.domains), None)


def _forged(gateway: Gateway, header: Header, log: EventLog) -> Ranges:
    """Find what claims to be our word: it is cut out."""
    ranges = tuple(forged_fields(header, gateway.settings.hostname))
    if ranges:
        log.event("cleaned", fields=len(ranges), text="forged Authentication-Results of ours were removed")
    return ranges


def _note_foresight(departure: Departure, log: EventLog) -> None:
    """Log what is foreseen, once for all aliases for which it is the same."""
    aliases: dict[Prospect, list[Address]] = {}
    for alias, prospect in departure.prospects.items():
        aliases.setdefault(prospect, []).append(alias)
    for prospect, some in aliases.items():
        foresight, course = prospect.foresight, prospect.course
        log.event(
            "foreseen",
            to=_listed(some),
            dmarc=foresight.expected.value,
            author=foresight.author or None,
            carrier=foresight.carrier or None,
            policy=foresight.policy.value if foresight.matters else None,
            action=course.action.value,
            text=course.reason or foresight.reason,
            broken=" ".join(departure.broken) or None,
        )


def _listed(addresses: Iterable[Address]) -> str:
    return " ".join(map(str, addresses))


async def _prepare(gateway: Gateway, arrival: Arrival, evidence: Evidence) -> Prepared:
    """Find out where the message goes and what never leaves us, and make it ready."""
    transaction = arrival.transaction
    looping = marks(evidence.header)
    routed: list[prepare.Routed] = []
    stopped: dict[Address, Outcome] = {}
    last: list[prepare.Routed] = []  # where two aliases lead to one mailbox, the one that may go names the delivery
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
    trace = headers.Trace(gateway.settings.hostname, transaction.id, gateway.clock.now(), arrival.hand)
    envelope = Outgoing(
        transaction.id,
        transaction.return_path,
        transaction.sender,
        transaction.options,
        arrival.content,
        (),
        evidence.found.authenticated,
    )
    departure = Departure(gateway, evidence, trace, routed + last, envelope)
    refused = {alias: Outcome(Verdict.REFUSED, reply) for alias, reply in departure.refused.items()}
    stopped = {**refused, **stopped}
    limits = [limit for one in transaction.accepted for limit in _limits(one) if one.recipient.address not in stopped]
    return Prepared(departure, stopped, tuple(limits), trace.received)


def _limits(one: Accepted) -> Sequence[Limit]:
    return one.decision.limits if isinstance(one.decision, Forward) else ()


async def _dispatch(gateway: Gateway, prepared: Prepared, header: Header, log: EventLog) -> Reply:
    """Hand the message on, or have it kept; give the reply."""
    for limit in prepared.limits:
        await gateway.limiter.take(limit.key, limit.count, limit.seconds)
    whole = prepared.departure.whole
    parts = await _offer(gateway, prepared, log)
    told = answer.answer(
        [outcome for part in parts for outcome in part.outcomes], whole.id, authenticated=whole.authenticated
    )
    reply = told.reply
    ours: list[Sent] = []
    for part in parts:
        if (told.keep and not part.done) or is_owed_report(part.message, part.outcomes):
            try:
                failed = await keep(gateway, letter_of(part.message, prepared.received, header), part.outcomes, log)
            except asyncio.CancelledError:  # `keep` sees to that one
                _leave(gateway, [each.message for each in _out(parts, ours) if each is not part])
                raise
            reply = failed or reply if told.keep else reply  # a report is no reason to have it all again
            if failed is None:
                ours.append(part)
    if not reply.positive:
        for limit in prepared.limits:  # only what was forwarded counts, and a retry counts once
            gateway.limiter.give_back(limit.key)
        for part in _out(parts, ours):
            await gateway.courier.unheard(part.message)  # the sender comes again, also with what we have
    return reply


def _out(parts: Sequence[Sent], ours: Sequence[Sent]) -> Sequence[Sent]:
    """Give those that must not go out again when the sender comes again; `ours` are in custody."""
    return [part for part in parts if part in ours or has_gone_out(part.outcomes)]


def _leave(gateway: Gateway, messages: Iterable[Outgoing]) -> None:
    """See to messages that were offered when we are stopped before the sender is told: it will come again."""
    for message in messages:
        note_unheard(gateway, message)


async def _offer(gateway: Gateway, prepared: Prepared, log: EventLog) -> Sequence[Sent]:
    """Offer all of the message at once; give what was sent in the end, in one piece or more."""
    deadline = gateway.clock.monotonic() + gateway.settings.cutthrough_deadline
    messages = prepared.departure.messages()
    first, *others = messages
    if not others:
        return await _offer_one(gateway, prepared, first, deadline, log)
    for one in others:
        aliases = dict.fromkeys(each.recipient for each in one.deliveries)
        log.event("rewritten", again=one.id, to=_listed(aliases), text="these copies alone get a From of ours")
    offers = (_offer_one(gateway, prepared, one, deadline, log) for one in messages)
    try:
        return [part for parts in await asyncio.gather(*offers) for part in parts]
    except asyncio.CancelledError:  # one may be out while the other is under way
        _leave(gateway, messages)
        raise


async def _offer_one(
    gateway: Gateway, prepared: Prepared, message: Outgoing, deadline: float, log: EventLog
) -> Sequence[Sent]:
    sent = Sent(message, await _hand_on(gateway, message, prepared.stopped, deadline))
    return await _with_fallback(gateway, prepared.departure, sent, deadline, log)


async def _with_fallback(
    gateway: Gateway, departure: Departure, sent: Sent, deadline: float, log: EventLog
) -> Sequence[Sent]:
    """Offer copies once more, with a From of ours, where DMARC was the reason to refuse what passed here."""
    if gateway.settings.rewriting.rewriting is Rewriting.NEVER:
        return [sent]
    pairs = list(zip(sent.message.deliveries, sent.outcomes, strict=True))
    again = [one for one, outcome in pairs if _is_for_dmarc(outcome) and departure.may_rewrite(one.recipient)]
    if not again:
        return [sent]
    message = departure.rewritten(again)
    aliases = dict.fromkeys(each.recipient for each in again)
    text = "refused by DMARC behind us, so it is offered with a From of ours"
    log.event("rewritten", again=message.id, to=_listed(aliases), text=text)
    try:
        outcomes = await gateway.courier.hand_on(message, deadline)
    except asyncio.CancelledError:
        _leave(gateway, [sent.message])
        raise
    rest = [pair for pair in pairs if pair[0] not in again]
    first = replace(sent.message, deliveries=tuple(one for one, _ in rest))
    return [part for part in (Sent(first, [outcome for _, outcome in rest]), Sent(message, outcomes)) if part.outcomes]


def _is_for_dmarc(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.REFUSED and outcome.ruling is not None and outcome.ruling.by_dmarc


async def _hand_on(
    gateway: Gateway, message: Outgoing, stopped: Mapping[Address, Outcome], deadline: float
) -> Sequence[Outcome]:
    """Offer a message to every destination that is open, or leave that to the spool; give all outcomes."""
    offered = replace(message, deliveries=tuple(one for one in message.deliveries if one.recipient not in stopped))
    found: Iterator[Outcome] = iter(())
    if offered.deliveries and gateway.settings.queue_first and message.authenticated:
        found = iter(await gateway.courier.known(offered))
    elif offered.deliveries:
        found = iter(await gateway.courier.hand_on(offered, deadline))
    idle = iter(await _stopped(gateway, message, stopped))
    return [next(idle if one.recipient in stopped else found) for one in message.deliveries]


async def _stopped(gateway: Gateway, message: Outgoing, stopped: Mapping[Address, Outcome]) -> Sequence[Outcome]:
    """Give the outcomes of what is not offered; what we took when the sender was here before, we have already."""
    deliveries = tuple(one for one in message.deliveries if one.recipient in stopped)
    known = await gateway.courier.known(replace(message, deliveries=deliveries)) if deliveries else ()
    pairs = zip(deliveries, known, strict=True)
    return [stopped[one.recipient] if before.verdict is Verdict.UNTRIED else before for one, before in pairs]


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
