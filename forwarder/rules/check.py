"""Faults that only all rules together show: duplicates, circles, dead ends.

Circles are looked for by walking from every rule that sends to a domain of ours, once as for a sender whom no `from`
names, and once for each `from` of such a rule as for a sender whom it names. Globs and the catch-all are walked with a
made-up name. What this cannot foresee (expressions, mixtures of `from`) the resolution catches at run time. The work is
bounded: past the bound, too, it is left to the resolution.
"""

from collections.abc import Iterable, Iterator, Mapping

from forwarder.model.address import Address, AddressError
from forwarder.model.destination import Destination
from forwarder.rules.match import FALLBACK_NAMES, Table
from forwarder.rules.names import name_of
from forwarder.rules.resolve import MAX_DEPTH, Key, destination_of, is_ours
from forwarder.rules.rule import Kind, Place, Problem, Rule
from forwarder.rules.senders import Senders
from forwarder.rules.targets import Send, Target, Template

_STEPS_PER_RULE = 4
_STEPS = 20_000


def duplicates(tables: Iterable[Table]) -> list[Problem]:
    """Find patterns that stand twice for one domain, with the same `from`."""
    problems: set[Problem] = set()
    for table in {id(table): table for table in tables}.values():
        groups = (*table.exact.values(), *table.patterns, table.catch_all)
        problems.update(problem for group in groups if _could_clash(group) for problem in _twice(group))
    return list(problems)


def _could_clash(group: tuple[Rule, ...]) -> bool:
    return len(group) > 1 or any(rule.senders is not None for rule in group)


def _twice(rules: Iterable[Rule]) -> Iterator[Problem]:
    first: dict[str, Rule] = {}
    for rule in rules:
        own: set[str] = set()
        for sender in [""] if rule.senders is None else [pattern.text for pattern in rule.senders.patterns]:
            known = first.setdefault(sender, rule)
            if known is not rule or sender in own:
                whose = f" from {sender}" if sender else ""
                reason = f"{rule.pattern}{whose} has a rule already, at {known.place}"
                yield Problem(rule.place.file, rule.place.line, rule.place.column, reason)
            own.add(sender)


def check_routes(tables: Mapping[str, Table], sections: Mapping[str, Place], postmaster: Address) -> list[Problem]:
    """Find circles, ways that are too long, and targets of ours for which there is no rule.

    `sections` says where each domain is first named: there stands what is wrong with the configured postmaster.
    """
    distinct = {id(table): (domain, table) for domain, table in tables.items()}
    starts = [(rule, domain) for domain, table in distinct.values() for rule in _staying(table, tables)]
    search = _Search(tables, sections, _STEPS + _STEPS_PER_RULE * len(starts))
    search.all_of(starts)
    for senders, those in _by_senders(starts).items():
        search.become(senders)
        search.all_of(those)
    if postmaster.domain in tables:
        search.become(None)
        for domain, table in distinct.values():
            for name in sorted(FALLBACK_NAMES):
                search.fallback(Address(name, domain), table)
    return list(search.problems)


def _by_senders(starts: list[tuple[Rule, str]]) -> dict[Senders, list[tuple[Rule, str]]]:
    classes: dict[Senders, list[tuple[Rule, str]]] = {}
    for rule, domain in starts:
        if rule.senders is not None:
            classes.setdefault(rule.senders, []).append((rule, domain))
    return classes


def _staying(table: Table, tables: Mapping[str, Table]) -> Iterator[Rule]:
    """Give the rules that may send to a domain of ours."""
    for number in table.plain.values():
        plain = table.lines.plain(number)
        if plain is not None and plain[1] in tables:
            yield table.lines.rule(number)
    yield from (rule for rule in table.written() if _stays(rule, tables))


def _stays(rule: Rule, tables: Mapping[str, Table]) -> bool:
    return isinstance(rule.action, Send) and any(_target_stays(target, tables) for target in rule.action.targets)


def _target_stays(target: Target, tables: Mapping[str, Table]) -> bool:
    if isinstance(target, Destination):
        return is_ours(target, tables)
    if target.via is not None:
        return False
    return len(target.domain) > 1 or not isinstance(target.domain[0], str) or target.domain[0] in tables


class _Search:
    """A walk over all rules that some sender meets; what an address leads to is worked out once."""

    def __init__(self, tables: Mapping[str, Table], sections: Mapping[str, Place], steps: int) -> None:
        self.problems: set[Problem] = set()
        self._tables = tables
        self._sections = sections
        self._steps = steps
        self._circles: set[frozenset[Key]] = set()
        self._heights: dict[Key, int] = {}  # how many rules follow one another from an address on
        self._senders: Senders | None = None

    def become(self, senders: Senders | None) -> None:
        """Walk on as a sender whom this `from` names, and no other."""
        self._senders = senders
        self._heights = {}

    def all_of(self, starts: Iterable[tuple[Rule, str]]) -> None:
        """Walk from these rules, each in its domain."""
        for rule, domain in starts:
            address = Address(_SAMPLES.get(rule.kind, rule.name.replace("*", "x").replace("?", "x")), domain)
            self._follow(rule, address, (address.key,))

    def fallback(self, address: Address, table: Table) -> None:
        """Walk from postmaster or abuse, if no rule is for it."""
        if table.pick(name_of(address.local), self._accepts) is table.fallback:
            self._follow(table.fallback, address, (address.key,))

    def _accepts(self, senders: Senders) -> bool:
        return senders == self._senders

    def _follow(self, rule: Rule, address: Address, trail: tuple[Key, ...]) -> int:
        """Follow every target of a rule; give the number of rules on the longest way."""
        longest = 0
        if isinstance(rule.action, Send):
            for target in rule.action.targets:
                if self._steps < 0:
                    break
                if rule.kind is Kind.REGEX and isinstance(target, Template):
                    continue  # nobody knows what the expression captures
                try:
                    destination = destination_of(target, rule, name_of(address.local), address.domain)
                except AddressError:
                    continue
                if is_ours(destination, self._tables):
                    longest = max(longest, self._reach(destination.address, target, rule, trail))
        return longest + 1

    def _reach(self, address: Address, target: Target, rule: Rule, trail: tuple[Key, ...]) -> int:
        """Go on from an address of ours to which `target` of `rule` leads."""
        key = address.key
        self._steps -= 1
        if key in trail:
            self._circle(rule, (*trail[trail.index(key) :], key))
            return 0
        known = self._heights.get(key)
        if len(trail) + (known or 1) > MAX_DEPTH:
            self._report(rule, f"more than {MAX_DEPTH} rules follow one another on the way from {_written(trail[0])}")
            return 0
        if known is not None:
            return known
        table = self._tables[address.domain]
        found = table.pick(name_of(address.local), self._accepts)
        height = 0
        if found is not None:
            height = self._follow(found, address, (*trail, key))
        elif isinstance(target, Destination) and not any(rules for _, rules in table.levels(name_of(address.local))):
            self._report(rule, f"{address} is an address of ours for which there is no rule")
        self._heights[key] = height
        return height

    def _circle(self, rule: Rule, keys: tuple[Key, ...]) -> None:
        if frozenset(keys) not in self._circles:
            self._circles.add(frozenset(keys))
            way = " -> ".join(_written(key) for key in keys)
            self._report(rule, f"the rules lead in a circle: {way}")

    def _report(self, rule: Rule, reason: str) -> None:
        place = rule.place
        if rule.kind is Kind.FALLBACK and isinstance(rule.action, Send):
            postmaster = rule.action.targets[0]
            assert isinstance(postmaster, Destination)
            place = self._sections[postmaster.address.domain]
            reason = f"postmaster of the configuration: {reason}"
        self.problems.add(Problem(place.file, place.line, place.column, reason))


def _written(key: Key) -> str:
    return str(Address(*key))


_SAMPLES = {Kind.CATCH_ALL: "any-name", Kind.REGEX: "any-name"}
