"""One rule, and what may be wrong with one.

A `Rule` is one pattern of one line: a line `sales, info -> …` makes two. Rules are plain values: two that mean the
same compare equal except for their `place` and `text`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from enum import Enum

from forwarder.model.reply import Reply
from forwarder.rules.senders import Senders
from forwarder.rules.targets import Send


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something is written: a file, its line and column, both from 1. Line 0 is no line of a file."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        """Write `file:line`."""
        return f"{self.file}:{self.line}" if self.line else self.file


CONFIGURED = Place("postmaster of the configuration", 0)  # where the rule stands that nobody wrote


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    file: str
    line: int
    column: int
    reason: str

    def __str__(self) -> str:
        """Write `file:line:column: reason`."""
        return f"{self.file}:{self.line}:{self.column}: {self.reason}"


class RulesError(ValueError):
    """The text cannot be used. `problems` holds everything that is wrong with it, sorted; never empty."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Kind(Enum):
    """What sort of pattern a rule has."""

    EXACT = "exact"
    GLOB = "glob"
    REGEX = "regex"
    CATCH_ALL = "catch-all"
    FALLBACK = "fallback"  # postmaster and abuse, when no rule says otherwise


@dataclass(frozen=True, slots=True)
class Drop:
    """`discard`: accept and throw away."""


Action = Send | Reply | Drop


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit`: at most `count` messages in `seconds`."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern and what becomes of the mail for it.

    `name` is the folded local part, the folded glob, or the expression without its slashes. `until` is the last day
    (UTC) on which it holds.
    """

    kind: Kind
    name: str
    senders: Senders | None
    action: Action
    until: date | None
    rate: Rate | None
    place: Place = field(compare=False)
    text: str = field(compare=False)

    @property
    def pattern(self) -> str:
        """The pattern as it is written in rules."""
        return f"/{self.name}/" if self.kind is Kind.REGEX else self.name
