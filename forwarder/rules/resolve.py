"""From one recipient to a decision, through as many rules as it takes.

A target in a served domain is looked up again, with the same sender, unless its rule says `via`: then it leaves by
that hop (a gateway in front of the domain's own server). The ways of a fan-out are put together so that nothing is
lost unseen:

1. A fault of the rules (a loop, over 10 deep, over 1,000 destinations, a template that gives no address) on any way
   refuses the recipient: 554 or 550. The sender learns of it.
2. Otherwise, if any way defers, the recipient is deferred: the sender comes again, and nobody gets two copies.
3. Otherwise, if any way forwards, the message goes to all of them. A way that rejects, has expired, is unknown or
   discards is left out: whoever wrote the rule meant it for that member of the list, not for the others.
4. Otherwise the first refusal counts; with none, everything discarded.

Limits of all rules that were followed count. Never raises, whatever the address.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date

from forwarder.model.address import Address, AddressError
from forwarder.model.destination import Destination, Hop
from forwarder.model.reply import Class, Reply
from forwarder.rules.decision import Decision, Defer, Discard, Forward, Limit, NotServed, Refuse
from forwarder.rules.expression import compile_expression
from forwarder.rules.match import Table
from forwarder.rules.names import Name, name_of
from forwarder.rules.rule import CONFIGURED, Drop, Kind, Rule
from forwarder.rules.senders import Senders
from forwarder.rules.targets import Send, Target, Template, Values, fill

MAX_DEPTH = 10  # rules followed one after the other
MAX_DESTINATIONS = 1_000  # of one recipient; also how many addresses of ours are looked up for it

UNKNOWN = Reply(550, "5.1.1", "There is no such address here")
EXPIRED = Reply(550, "5.1.1", "This address is no longer in use")
_NO_ADDRESS = Reply(550, "5.1.1", "This address cannot be forwarded: its rule gives no valid destination for it")
_LOOP = Reply(554, "5.4.6", "The forwarding rules for this address lead in a circle")  # RFC 3463 3.5
_DEEP = Reply(554, "5.4.6", f"The forwarding rules for this address go more than {MAX_DEPTH} deep")
_WIDE = Reply(554, "5.3.5", "The forwarding rules for this address lead to too many destinations")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Visit:
    """One look-up: which rule an address came to, None if it came to none."""

    depth: int
    address: Address
    rule: Rule | None


@dataclass(slots=True)
class Walk:
    """A resolution in progress, and afterwards what it came to."""

    tables: Mapping[str, Table]
    accepts: Callable[[Senders], bool]
    today: date
    visits: list[Visit] = field(default_factory=list)
    destinations: dict[tuple[Key, Hop | None], Destination] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    fault: Reply | None = None
    deferral: Reply | None = None
    refusal: Reply | None = None
    looked_up: set[Key] = field(default_factory=set)

    def visit(self, address: Address, trail: tuple[Key, ...] = ()) -> None:
        """Follow the rules for an address in a served domain; `trail` is how we came here."""
        key = address.key
        if key in trail or len(trail) >= MAX_DEPTH:
            self.fault = _LOOP if key in trail else _DEEP
            return
        if key in self.looked_up:
            return  # by another way of a fan-out
        self.looked_up.add(key)
        name = name_of(address.local)
        rule = self.tables[address.domain].pick(name, self.accepts)
        self.visits.append(Visit(len(trail), address, rule))
        if rule is None:
            self.refusal = self.refusal or UNKNOWN
        elif rule.until is not None and self.today > rule.until:
            self.refusal = self.refusal or EXPIRED
        else:
            self._follow(rule, name, address, (*trail, key))

    def _follow(self, rule: Rule, name: Name, address: Address, trail: tuple[Key, ...]) -> None:
        if rule.rate is not None:
            limit = _limit(rule, address.domain)
            self.limits[limit.key] = limit
        match rule.action:
            case Send(targets):
                for target in targets:
                    self._send(target, rule, name, address, trail)
                    if self.fault is not None:
                        return
            case Drop():
                pass
            case Reply() as reply if reply.kind is Class.TEMPORARY:
                self.deferral = self.deferral or reply
            case Reply() as reply:
                self.refusal = self.refusal or reply

    def _send(self, target: Target, rule: Rule, name: Name, address: Address, trail: tuple[Key, ...]) -> None:
        try:
            destination = destination_of(target, rule, name, address.domain)
        except AddressError:
            self.fault = _NO_ADDRESS
            return
        if is_ours(destination, self.tables):
            self.visit(destination.address, trail)
        else:
            self.destinations.setdefault((destination.address.key, destination.via), destination)
        if len(self.destinations) + len(self.looked_up) > MAX_DESTINATIONS:
            self.fault = _WIDE

    def decision(self) -> Decision:
        """Put the ways together, as the module says."""
        path = tuple(visit.rule.place for visit in self.visits if visit.rule is not None)
        if self.fault is not None:
            return Refuse(self.fault, path)
        if self.deferral is not None:
            return Defer(self.deferral, path)
        if self.destinations:
            return Forward(tuple(self.destinations.values()), tuple(self.limits.values()), path)
        return Discard(path) if self.refusal is None else Refuse(self.refusal, path)


def is_ours(destination: Destination, tables: Mapping[str, Table]) -> bool:
    """Whether a destination is looked up again."""
    return destination.via is None and destination.address.domain in tables


def destination_of(target: Target, rule: Rule, name: Name, domain: str) -> Destination:
    """Give what a target of a rule is for one recipient; raise `AddressError` if that is no address."""
    if not isinstance(target, Template):
        return target
    captures: tuple[str | None, ...] = ()
    if rule.kind is Kind.REGEX and target.captures:
        expression = compile_expression(rule.name)
        # As the sender wrote it, where that matches as well as the folded text does: captures keep the spelling.
        match = expression.fullmatch(name.written) or expression.fullmatch(name.folded)
        captures = match.groups() if match else ()
    return fill(target, Values(name.written, name.tag, domain, captures))


def _limit(rule: Rule, domain: str) -> Limit:
    assert rule.rate is not None
    senders = f" from {rule.senders}" if rule.senders else ""
    return Limit(f"rule {rule.pattern}@{domain}{senders}", rule.rate.count, rule.rate.seconds, rule.place)


def walk(
    tables: Mapping[str, Table], postmaster: Address, recipient: Address, sender: Address | None, today: date
) -> tuple[Walk | None, Decision]:
    """Resolve; also give the walk, for those who explain. None if the domain is not ours."""
    done = Walk(tables, lambda senders: senders.matches(sender), today)
    if recipient.domain in tables:
        done.visit(recipient)
    elif recipient.domain or recipient.local.lower() != "postmaster":
        return None, NotServed()
    elif postmaster.domain in tables:  # RFC 5321 4.5.1: <Postmaster> without a domain
        done.visit(postmaster)
    else:
        return done, Forward((Destination(postmaster),), (), (CONFIGURED,))
    return done, done.decision()
