"""What a check of live DNS comes to: one `Finding` for each record, and what is asked of the resolver."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from forwarder.ops.records import quoted
from forwarder.ports import Answer, Resolver


class Questions(Resolver, Protocol):
    """The resolver, and what only these checks want to know."""

    async def cname(self, name: str) -> Answer[str]:
        """Give the name that another stands for."""
        ...

    async def soa(self, name: str) -> Answer[str]:
        """Give the first name server of the zone that begins at a name."""
        ...


class Status(Enum):
    """What was found out about a record."""

    OK = "ok"
    MISSING = "missing"
    DIFFERENT = "different"
    WARNING = "warning"  # it works, but
    UNANSWERED = "could not be checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """One record, for `owner`. `there` and `expected` are as in a zone file; `fix` is "" if it is OK."""

    status: Status
    owner: str
    name: str
    kind: str
    there: str = ""
    expected: str = ""
    fix: str = ""

    @property
    def must_be_fixed(self) -> bool:
        """Whether something does not work until it is put right."""
        return self.status in (Status.MISSING, Status.DIFFERENT)


@dataclass(frozen=True, slots=True)
class Subject:
    """The record that is being checked: makes findings about it."""

    owner: str
    name: str
    kind: str
    expected: str = ""

    def ok(self, there: str, note: str = "") -> Finding:
        """Say that it is right; `note` may advise something."""
        return Finding(Status.OK, self.owner, self.name, self.kind, there, self.expected, note)

    def missing(self, fix: str) -> Finding:
        """Say that it is not there."""
        return Finding(Status.MISSING, self.owner, self.name, self.kind, "", self.expected, fix)

    def different(self, there: str, fix: str) -> Finding:
        """Say that something else is there."""
        return Finding(Status.DIFFERENT, self.owner, self.name, self.kind, there, self.expected, fix)

    def warning(self, there: str, fix: str) -> Finding:
        """Say that it works, but not as it should."""
        return Finding(Status.WARNING, self.owner, self.name, self.kind, there, self.expected, fix)

    def unanswered(self, answer: Answer[Any]) -> Finding:
        """Say that DNS did not answer."""
        return self.untold(answer.reason)

    def untold(self, reason: str) -> Finding:
        """Say that nothing could be found out, for a reason that may pass."""
        fix = f"try again later: {reason}"
        return Finding(Status.UNANSWERED, self.owner, self.name, self.kind, "", self.expected, fix)


def texts(found: Iterable[bytes]) -> str:
    """Show TXT records as a zone file has them."""
    return ", ".join(sorted(quoted(octets.decode("utf-8", "replace")) for octets in found))
