"""The rules of one domain, and in which order they are asked for one local part.

Precedence: the exact name with its tag; the exact name without it; globs and expressions in file order; for
`postmaster` and `abuse` the configured postmaster; the catch-all. Rules of the same pattern stand together where the
first of them stands; among them those with `from` come first, in file order. A glob sees the whole local part, and
failing that the part before the tag; an expression sees the whole local part only.

The configured postmaster comes before the catch-all, so that `* -> discard` or a child's catch-all does not swallow
complaints (RFC 2142, RFC 5321 4.5.1); a rule that names or describes postmaster or abuse comes before both.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.rules.expression import ExpressionSet
from forwarder.rules.names import Name, glob_expression
from forwarder.rules.plain import Lines
from forwarder.rules.rule import CONFIGURED, Kind, Rule
from forwarder.rules.senders import Senders
from forwarder.rules.targets import Send

FALLBACK_NAMES = frozenset({"postmaster", "abuse"})


class Level(Enum):
    """A step of the precedence."""

    WHOLE = "the whole name"
    BASE = "the name without its tag"
    PATTERN = "globs and expressions"
    FALLBACK = "postmaster of the configuration"
    CATCH_ALL = "catch-all"


@dataclass(frozen=True, slots=True)
class Table:
    """Rules by what finds them. `patterns[i]` are the rules of the expression with index i in `expressions`.

    A name is either in `exact` or, if a plain line is all there is for it, in `plain` with the number of that line.
    """

    exact: dict[str, tuple[Rule, ...]]
    plain: dict[str, int]
    lines: Lines
    patterns: tuple[tuple[Rule, ...], ...]
    expressions: ExpressionSet
    catch_all: tuple[Rule, ...]
    fallback: Rule

    def named(self, name: str) -> tuple[Rule, ...]:
        """Give the rules for exactly this folded name."""
        number = self.plain.get(name)
        return self.exact.get(name, ()) if number is None else (self.lines.rule(number),)

    def levels(self, name: Name) -> Iterator[tuple[Level, Sequence[Rule]]]:
        """Give the rules whose pattern matches, level by level, in the order in which they are asked."""
        yield Level.WHOLE, self.named(name.folded)
        if name.base:
            yield Level.BASE, self.named(name.base)
        if self.patterns:
            found = self.expressions.matches(name.folded)
            yield Level.PATTERN, [rule for index in found for rule in self.patterns[index]]
        if (name.base or name.folded) in FALLBACK_NAMES:
            yield Level.FALLBACK, (self.fallback,)
        yield Level.CATCH_ALL, self.catch_all

    def pick(self, name: Name, accepts: Callable[[Senders], bool]) -> Rule | None:
        """Give the first rule that is for this name, and whose `from`, if it has one, accepts the sender."""
        for _, rules in self.levels(name):
            for rule in rules:
                if rule.senders is None or accepts(rule.senders):
                    return rule
        return None

    def written(self) -> Iterator[Rule]:
        """Give all rules but those of plain lines, exact ones first."""
        for rules in (*self.exact.values(), *self.patterns):
            yield from rules
        yield from self.catch_all

    def rules(self) -> Iterator[Rule]:
        """Give all rules that somebody wrote."""
        yield from (self.lines.rule(number) for number in self.plain.values())
        yield from self.written()


def configured(postmaster: Address) -> Rule:
    """Make the rule for postmaster and abuse that nobody wrote."""
    send = Send((Destination(postmaster),))
    return Rule(Kind.FALLBACK, "postmaster", None, send, None, None, CONFIGURED, f"postmaster = {postmaster}")


def make_table(rules: Sequence[Rule], plain: dict[str, int], lines: Lines, fallback: Rule) -> Table:
    """Sort rules, which come in file order, into a table; `plain` has no names that are among them."""
    exact: dict[str, tuple[Rule, ...]] = {}
    patterns: dict[str, list[Rule]] = {}
    catch_all: list[Rule] = []
    for rule in rules:
        if rule.kind is Kind.EXACT:
            others = exact.get(rule.name)
            exact[rule.name] = (rule,) if others is None else (*others, rule)
        elif rule.kind is Kind.CATCH_ALL:
            catch_all.append(rule)
        else:
            patterns.setdefault(rule.pattern, []).append(rule)
    for name, several in exact.items():
        if len(several) > 1:
            exact[name] = _from_first(several)
    groups = tuple(_from_first(group) for group in patterns.values())
    expressions = ExpressionSet([_expression(group[0]) for group in groups])
    return Table(exact, plain, lines, groups, expressions, _from_first(catch_all), fallback)


def _from_first(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    return tuple(sorted(rules, key=lambda rule: rule.senders is None))


def _expression(rule: Rule) -> str:
    return glob_expression(rule.name, tags=True) if rule.kind is Kind.GLOB else rule.name
