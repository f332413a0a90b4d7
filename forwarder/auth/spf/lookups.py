"""DNS questions of one SPF check, counted (RFC 7208 4.6.4): ten terms that query, two of them in vain, ten names each.

Contract: each method gives what DNS said, or raises `TemporaryTrouble` (no answer) or `PermanentTrouble` (a limit).
A name that DNS cannot hold is not asked for: it has no records. Over a whole check, explanation included, at most
`MAX_QUESTIONS` questions are asked, whatever the records say and whatever DNS answers.

Left out on purpose: the limit on elapsed time (RFC 7208 4.6.4 too), which belongs to the resolver and to who waits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from forwarder.auth.spf.macros import MAX_NAME
from forwarder.auth.spf.record import select
from forwarder.model.address import client_ip, parse_ip
from forwarder.ports import Answer, DnsStatus, Resolver

T = TypeVar("T")

MAX_TERMS = 10  # RFC 7208 4.6.4
MAX_VOID_TERMS = 2
MAX_NAMES = 10  # of one MX or PTR answer
MAX_OCTETS = 32_768  # of all records of a check; the longest in use have 4,000 or so
# The first record, ten terms with ten names each, %{p} once in a term, the explanation.
MAX_QUESTIONS = 1 + MAX_TERMS * (1 + MAX_NAMES) + (1 + MAX_NAMES) + 1
_MAX_LABEL = 63


class TemporaryTrouble(Exception):  # noqa: N818 - the field's word
    """DNS gave no answer: temperror. The text says for what."""


class PermanentTrouble(Exception):  # noqa: N818 - the field's word
    """The records are wrong or ask for too much: permerror. The text says why."""


@dataclass(frozen=True, slots=True)
class Client:
    """The address that the mail comes from; an IPv4-mapped one is an IPv4 address (RFC 7208 5)."""

    address: IPv4Address | IPv6Address

    @property
    def is_ipv6(self) -> bool:
        """Whether AAAA records count instead of A records."""
        return self.address.version == 6


def parse_client(text: str) -> Client:
    """Read an IP address; raise `ValueError`."""
    return Client(client_ip(text))


def can_be_asked(name: str) -> bool:
    """Say whether DNS can hold such a name (RFC 7208 4.3)."""
    fits = 0 < len(name) <= MAX_NAME and name.isascii()
    return fits and all(0 < len(label) <= _MAX_LABEL for label in name.split("."))


class Lookups:
    """Asks for one check. `begin_term` is called for each term that queries, before its first question."""

    def __init__(self, resolver: Resolver, client: Client) -> None:
        self._resolver = resolver
        self._client = client
        self._is_counting = True
        self._octets = 0
        self._terms = 0
        self._void_terms = 0
        self._term_is_void = False
        self._reverse_names: tuple[str, ...] | None = None
        self._confirmed: dict[str, bool] = {}

    @property
    def knows_reverse_names(self) -> bool:
        """Whether the PTR records have been asked for already."""
        return self._reverse_names is not None

    def stop_counting(self) -> None:
        """Begin the explanation, which is not subject to the limits (RFC 7208 4.6.4)."""
        self._is_counting = False

    def begin_term(self) -> None:
        """Count one of include, a, mx, ptr, exists, redirect and the look-up behind %{p} (RFC 7208 4.6.4)."""
        self._terms += 1
        self._term_is_void = False
        if self._terms > MAX_TERMS:
            raise PermanentTrouble(f"more than {MAX_TERMS} terms ask DNS")

    async def policies(self, domain: str) -> list[bytes]:
        """Give the SPF records of a domain, unread."""
        answer = await self._resolver.txt(domain)
        records = select(self._known(answer, f"TXT of {domain}").records)
        self._octets += sum(map(len, records))
        if self._octets > MAX_OCTETS:  # RFC 7208 11.1: processing time is a target
            raise PermanentTrouble(f"the SPF records have more than {MAX_OCTETS} octets")
        return records

    async def addresses(self, name: str) -> list[IPv4Address | IPv6Address]:
        """Give the addresses of a name in the client's family."""
        return _parsed((await self._addresses(name, ipv6=self._client.is_ipv6)).records)

    async def exists(self, name: str) -> bool:
        """Say whether a name has an A record, whatever the client's family (RFC 7208 5.7)."""
        return bool((await self._addresses(name, ipv6=False)).records)

    async def mail_hosts(self, name: str) -> list[str]:
        """Give the names of a domain's mail exchangers; never falls back to the domain itself (RFC 7208 5.4)."""
        if not can_be_asked(name):
            return []
        answer = self._known(await self._resolver.mx(name), f"MX of {name}")
        self._note_void(answer)
        if len(answer.records) > MAX_NAMES:
            raise PermanentTrouble(f"{name} has more than {MAX_NAMES} MX records")
        return [record.host for record in answer.records if record.host]

    async def confirmed_name(self, domain: str, *, within: bool) -> str:
        """Give a reverse name of the client that points back to it, or "" (RFC 7208 5.5).

        Preferred is the domain, then a name below it; `within` admits no other (RFC 7208 7.3).
        """
        names = await self._names_of_client()
        for name in sorted(names, key=lambda name: _distance(name, domain)):
            if within and not is_within(name, domain):
                break
            if await self._points_back(name):
                return name
        return ""

    async def _names_of_client(self) -> tuple[str, ...]:
        if self._reverse_names is None:
            answer = await self._resolver.ptr(str(self._client.address))
            self._note_void(answer)
            # RFC 7208 4.6.4, 5.5: the first ten count; what goes wrong with PTR is no error of the domain's
            names = answer.records[:MAX_NAMES]
            self._reverse_names = tuple(name.lower().removesuffix(".") for name in names)
        return self._reverse_names

    async def _points_back(self, name: str) -> bool:
        if name not in self._confirmed:
            answer = None
            if can_be_asked(name):
                answer = await self._resolver.addresses(name, ipv6=self._client.is_ipv6)
            self._confirmed[name] = answer is not None and self._client.address in _parsed(answer.records)
        return self._confirmed[name]

    async def _addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        if not can_be_asked(name):
            return Answer(DnsStatus.NXDOMAIN)
        answer = await self._resolver.addresses(name, ipv6=ipv6)
        self._note_void(answer)
        return self._known(answer, f"{'AAAA' if ipv6 else 'A'} of {name}")

    def _known(self, answer: Answer[T], what: str) -> Answer[T]:
        if answer.status is DnsStatus.FAILED:  # RFC 7208 4.4, 5
            raise TemporaryTrouble(f"DNS did not answer for {what}: {answer.reason}")
        return answer

    def _note_void(self, answer: Answer[T]) -> None:
        """Count terms that DNS has nothing for, each once (RFC 7208 4.6.4 counts terms, not questions)."""
        is_void = answer.status in (DnsStatus.NODATA, DnsStatus.NXDOMAIN)
        if not is_void or self._term_is_void or not self._is_counting:
            return
        self._term_is_void = True
        self._void_terms += 1
        if self._void_terms > MAX_VOID_TERMS:
            raise PermanentTrouble(f"more than {MAX_VOID_TERMS} terms ask DNS for what does not exist")


def is_within(name: str, domain: str) -> bool:
    """Say whether a name is the domain or below it; both in lower case."""
    return name == domain or name.endswith("." + domain)


def _distance(name: str, domain: str) -> int:
    if name == domain:
        return 0
    return 1 if is_within(name, domain) else 2


def _parsed(records: Iterable[str]) -> list[IPv4Address | IPv6Address]:
    found = []
    for record in records:
        try:
            found.append(parse_ip(record))
        except ValueError:
            continue
    return found
