"""Which names belong to one organisation, and where its policy is: the DNS tree walk (RFC 9989 4.10).

`TreeWalks` serves one message: a name is asked for once however many walks pass it, a walk asks at most `MAX_QUERIES`
questions, and a question that is not answered ends the walk, which then says so instead of guessing.

`public_organisation` is what the public suffix list holds instead (RFC 7489 3.2): receivers that have not moved on go
by it. The list comes with the library and is read on first use, which takes some 0.2 seconds, once per process.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from forwarder.auth.dmarc.record import DmarcRecord, Psd, select_record
from forwarder.ports import DnsStatus, Resolver

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

MAX_QUERIES = 8  # RFC 9989 4.10
_LABELS_AFTER_JUMP = MAX_QUERIES - 1
_KEPT = 4096  # names looked up in the public suffix list


@dataclass(frozen=True, slots=True)
class Found:
    """A policy record and the domain that publishes it at `_dmarc`."""

    domain: str
    record: DmarcRecord


@dataclass(frozen=True, slots=True)
class Walk:
    """What lies between a name and the root. `found` is in order, the longest name first.

    `unanswered` says why the walk broke off, "" when it came to its end.
    """

    start: str
    found: tuple[Found, ...]
    unanswered: str = ""

    @property
    def own(self) -> Found | None:
        """The record at the start itself."""
        return self.found[0] if self.found and self.found[0].domain == self.start else None

    @property
    def organisation(self) -> str:
        """The organisational domain of the start, "" when the walk broke off (RFC 9989 4.10.2)."""
        if self.unanswered:
            return ""
        if not self.found:
            return self.start
        # A walk ends at psd=n (rule 1) or psd=y (rule 2); else its last record has the fewest labels (rule 3).
        last = self.found[-1]
        if last.record.psd is Psd.YES and last.domain != self.start:
            return _one_label_below(last.domain, self.start)
        return last.domain

    @property
    def policy(self) -> Found | None:
        """The record to apply: the start's, its organisation's, or its public suffix's (RFC 9989 4.10.1).

        When the walk broke off, only the start's own is certain.
        """
        if self.own or self.unanswered or not self.found:
            return self.own
        organisation = self.organisation
        return next((each for each in self.found if each.domain == organisation), self.found[-1])


def walk_names(domain: str) -> tuple[str, ...]:
    """Give the domains that a walk asks, in order (RFC 9989 4.10, steps 3, 4 and 7)."""
    labels = domain.split(".")
    first = 1 if len(labels) < MAX_QUERIES else len(labels) - _LABELS_AFTER_JUMP
    return domain, *(".".join(labels[start:]) for start in range(first, len(labels)))


class TreeWalks:
    """Walks for one message."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._records: dict[str, DmarcRecord | None] = {}
        self._failures: dict[str, str] = {}

    @property
    def asked(self) -> int:
        """How many different names were asked for."""
        return len(self._records) + len(self._failures)

    async def walk(self, domain: str) -> Walk:
        """Walk from a canonical name up to the root, or to where a record says psd=y or psd=n."""
        found: list[Found] = []
        for name in walk_names(domain):
            record = await self._record(name)
            if name in self._failures:
                return Walk(domain, tuple(found), self._failures[name])
            if record is not None:
                found.append(Found(name, record))
                if record.psd is not Psd.UNKNOWN:  # RFC 9989 4.10, steps 2 and 6
                    break
        return Walk(domain, tuple(found))

    async def _record(self, domain: str) -> DmarcRecord | None:
        if domain not in self._records and domain not in self._failures:
            answer = await self._resolver.txt(f"_dmarc.{domain}")
            if answer.status is DnsStatus.FAILED:
                self._failures[domain] = f"DNS did not answer for _dmarc.{domain}: {answer.reason}"
            else:
                self._records[domain] = select_record(answer.records)
        return self._records.get(domain)


def _one_label_below(suffix: str, name: str) -> str:
    """Give the part of `name` that is one label longer than `suffix`, which it ends in."""
    return name[: -len(suffix) - 1].rpartition(".")[2] + "." + suffix


def is_within(name: str, domain: str) -> bool:
    """Say whether a name is a domain or below it."""
    return name == domain or name.endswith("." + domain)


@lru_cache(_KEPT)
def public_organisation(domain: str) -> str:
    """Give the organisational domain by the public suffix list; a public suffix is its own."""
    return _public_suffixes().privatesuffix(domain) or domain


@cache
def _public_suffixes() -> "PublicSuffixList":
    from publicsuffixlist import PublicSuffixList  # 0.25 s with its list, and commands without mail do not need it

    return PublicSuffixList()
