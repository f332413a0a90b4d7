"""The rules in force: immutable, shared by all sessions, replaced whole by a reload.

A session that began with one `RuleSet` keeps it. Dropping the last reference frees all rules at once, which takes
some milliseconds for 100,000 of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from forwarder.model.address import Address
from forwarder.rules.decision import Decision
from forwarder.rules.match import Table
from forwarder.rules.resolve import walk


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
        return walk(self.tables, self.postmaster, recipient, sender, today)[1]
