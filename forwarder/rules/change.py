"""What a reload would change, counted in rules.

A rule is the same rule when its domain, pattern and `from` are; it is changed when its action or an option differs. A
rule that serves several domains counts once. Moving rules about changes nothing, except that the order of globs and
expressions is not looked at here.
"""

from dataclasses import dataclass

from forwarder.rules.match import Table
from forwarder.rules.rule import Place, Rule
from forwarder.rules.ruleset import RuleSet

_ENOUGH = 10  # fewer old rules say nothing about a shrunken file

Identity = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """How many rules a new set adds, removes and changes; `total` is how many it has, `before` how many the old had."""

    added: int
    removed: int
    changed: int
    total: int
    before: int

    @property
    def empty(self) -> bool:
        """Whether nothing is left of rules that were there."""
        return self.total == 0 and self.before > 0

    @property
    def shrunken(self) -> bool:
        """Whether more than half of at least 10 rules are gone: a cut-off file looks like that."""
        return self.before >= _ENOUGH and self.total * 2 < self.before

    @property
    def suspicious(self) -> bool:
        """Whether this is to be done only when somebody insists."""
        return self.empty or self.shrunken


def compare(old: RuleSet, new: RuleSet) -> Change:
    """Say what becomes different when `new` replaces `old`. Takes time in proportion to both."""
    added: set[Place] = set()
    removed: set[Place] = set()
    changed: set[Place] = set()
    seen: set[tuple[int, int]] = set()
    for domain in {**old.tables, **new.tables}:
        before, after = old.tables.get(domain), new.tables.get(domain)
        if (id(before), id(after)) in seen:
            continue  # domains of one section share their table
        seen.add((id(before), id(after)))
        was, now = _by_identity(before, after), _by_identity(after, before)
        added.update(rule.place for identity, rule in now.items() if identity not in was)
        removed.update(rule.place for identity, rule in was.items() if identity not in now)
        changed.update(rule.place for identity, rule in now.items() if identity in was and was[identity] != rule)
    return Change(len(added), len(removed), len(changed), new.total, old.total)


def _by_identity(table: Table | None, other: Table | None) -> dict[Identity, Rule]:
    """Give the rules of a table, without plain lines that are the same in the other."""
    if table is None:
        return {}
    theirs = other.plain if other is not None else {}
    same = {
        name
        for name, number in table.plain.items()
        if other is not None and name in theirs and table.lines.text(number) == other.lines.text(theirs[name])
    }
    plain = (table.lines.rule(number) for name, number in table.plain.items() if name not in same)
    return {(rule.kind.value, rule.name, str(rule.senders or "")): rule for rule in (*plain, *table.written())}
