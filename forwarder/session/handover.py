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
from forwarder.model.message import Content, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.policy import answer
from forwarder.policy.content import marks, objection
from forwarder.policy.rewriting import Action, Rewriting
from forwarder.ports import EventLog
from forwarder.rewrite import headers, prepare
from forwarder.rules import Discard, Forward, Limit, Place
from forwarder.session.custody import is_owed_report, keep, letter_of
from forwarder.session.departure import Departure, Evidence, Ranges
from forwarder.session.examination import Examination
from forwarder.session.gateway import Gateway
from forwarder.session.verdict import judge, told

_LOOP = Reply(554, "5.4.6", "Mail loop: the message was delivered to this address before")
_OVER_LIMIT = Reply(450, "4.7.1", "This address gets more mail than it is set up for: try again later")
_DMARC = ("dmarc", "alignment")  # names of rulings
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

    departure: Departure
    message: Outgoing
    stopped: tuple[Outcome | None, ...]
    limits: tuple[Limit, ...]
    received: datetime


@dataclass(frozen=True, slots=True)
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
    arrival.transaction.outgoing = prepared.message
    _note_foresight(prepared.departure, arrival.log)
    if prepared.departure.course.reply is not None:
        return prepared.departure.course.reply
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
    foresight, course = departure.foresight, departure.course
    log.event(
        "foreseen",
        dmarc=foresight.expected.value,
        author=foresight.author or None,
        carrier=foresight.carrier or None,
        policy=foresight.policy.value if foresight.matters else None,
        action=course.action.value,
        text=course.reason or foresight.reason,
        broken=" ".join(departure.broken) or None,
    )


async def _prepare(gateway: Gateway, arrival: Arrival, evidence: Evidence) -> Prepared:
    """Find out where the message goes and what never leaves us, and make it ready."""
    transaction = arrival.transaction
    looping = marks(evidence.header)
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
    message = departure.message(rewritten=departure.course.action is Action.REWRITE)
    kept_back = tuple(stopped.get(one.recipient) for one in message.deliveries)
    return Prepared(departure, message, kept_back, tuple(limits), trace.received)


async def _dispatch(gateway: Gateway, prepared: Prepared, header: Header, log: EventLog) -> Reply:
    """Hand the message on, or have it kept; give the reply."""
    for limit in prepared.limits:
        await gateway.limiter.take(limit.key, limit.count, limit.seconds)
    deadline = gateway.clock.monotonic() + gateway.settings.cutthrough_deadline
    sent = Sent(prepared.message, await _hand_on(gateway, prepared, deadline))
    parts = await _with_fallback(gateway, prepared, sent, deadline, log)
    told = answer.answer(
        [outcome for part in parts for outcome in part.outcomes],
        prepared.message.id,
        authenticated=prepared.message.authenticated,
    )
    reply = told.reply
    for part in parts:
        if (told.keep and not part.done) or is_owed_report(part.message, part.outcomes):
            failed = await keep(gateway, letter_of(part.message, prepared.received, header), part.outcomes, log)
            reply = failed or reply if told.keep else reply  # a report is no reason to have it all again
    if not reply.positive:
        for limit in prepared.limits:  # only what was forwarded counts, and a retry counts once
            gateway.limiter.give_back(limit.key)
        for part in parts:
            if any(outcome.verdict in (Verdict.DELIVERED, Verdict.RUNNING) for outcome in part.outcomes):
                await gateway.courier.unheard(part.message)  # the sender comes again, also with what was delivered
    return reply


async def _with_fallback(
    gateway: Gateway, prepared: Prepared, sent: Sent, deadline: float, log: EventLog
) -> Sequence[Sent]:
    """Offer the message once more, with a From of ours, where DMARC was the reason to refuse what passed here."""
    departure = prepared.departure
    refused = [n for n, outcome in enumerate(sent.outcomes) if _is_for_dmarc(outcome)]
    wanted = gateway.settings.rewriting.rewriting is not Rewriting.NEVER and departure.foresight.passed_here
    if not refused or not wanted or departure.course.action is Action.REWRITE or departure.hindrance:
        return [sent]
    whole = departure.message(rewritten=True)
    again = replace(whole, id=gateway.new_id(), deliveries=tuple(whole.deliveries[n] for n in refused))
    log.event("rewritten", again=again.id, text="refused by DMARC behind us, so it is offered with a From of ours")
    outcomes = await gateway.courier.hand_on(again, deadline)
    rest = [n for n in range(len(sent.outcomes)) if n not in refused]
    first = replace(sent.message, deliveries=tuple(sent.message.deliveries[n] for n in rest))
    return [part for part in (Sent(first, [sent.outcomes[n] for n in rest]), Sent(again, outcomes)) if part.outcomes]


def _is_for_dmarc(outcome: Outcome) -> bool:
    return outcome.verdict is Verdict.REFUSED and outcome.ruling is not None and outcome.ruling.name in _DMARC


async def _hand_on(gateway: Gateway, prepared: Prepared, deadline: float) -> Sequence[Outcome]:
    """Offer the message to every destination that is open, or leave that to the spool; give all outcomes."""
    message = prepared.message
    deliveries = zip(message.deliveries, prepared.stopped, strict=True)
    offered = replace(message, deliveries=tuple(one for one, stopped in deliveries if stopped is None))
    found: Iterator[Outcome] = iter(())
    if offered.deliveries and gateway.settings.queue_first and message.authenticated:
        found = iter(await gateway.courier.known(offered))
    elif offered.deliveries:
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
