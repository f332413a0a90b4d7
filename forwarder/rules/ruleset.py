"""The rules in force: immutable, shared by all sessions, replaced whole by a reload.

A session that began with one `RuleSet` keeps it. Dropping the last reference frees all rules at once, which takes
some milliseconds for 100,000 of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from forwarder.model.address import Address
from forwarder.rules.decision import Decision, Forward
from forwarder.rules.match import Table
from forwarder.rules.names import fold
from forwarder.rules.resolve import is_ours, walk


@dataclass(frozen=True, slots=True, eq=False)
class RuleSet:
    """What `parse` gives. `tables` is by canonical domain; `total` is the number of rules written."""

    tables: Mapping[str, Table]
    total: int
    postmaster: Address

    @property
    def domains(self) -> frozenset[str]:
        """The served domains, as canonical A-labels."""
        return frozenset(self.tables)

    def resolve(self, recipient: Address, sender: Address | None, today: date) -> Decision:
        """Say what becomes of mail for `recipient`; `sender` None is the null sender, `today` is the day in UTC."""
        table = self.tables.get(recipient.domain)
        if table is not None and (number := table.plain.get(fold(recipient.local))) is not None:
            # The most common case by far needs no walk: one plain line that sends away from here.
            destination, place = table.lines.target(number)
            if not is_ours(destination, self.tables):
                return Forward((destination,), (), (place,))
        return walk(self.tables, self.postmaster, recipient, sender, today)[1]
