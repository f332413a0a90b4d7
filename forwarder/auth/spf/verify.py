"""The SPF check: evaluate a domain's record for a client (RFC 7208 4), for the MAIL FROM and the HELO identity.

`check_host` answers for one identity, `check` for both. Neither raises for anything that a peer or DNS may say; the
work is bounded by `lookups.MAX_QUESTIONS` per identity. A result says which term decided, and why if it is no pass.
An explanation (`exp=`) is a stranger's text: it is fetched only when `check_host` is asked to, cut and cleaned.

Left out on purpose: what follows from a result (that is policy's), and guesses for domains without a record.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from typing import Any

from forwarder.auth.spf.lookups import (
    Client,
    Lookups,
    PermanentTrouble,
    TemporaryTrouble,
    can_be_asked,
    parse_client,
)
from forwarder.auth.spf.macros import MacroString, SpfSyntaxError, expand_name, expand_text, parse_explanation
from forwarder.auth.spf.record import (
    A,
    All,
    Directive,
    Exists,
    Include,
    Mechanism,
    MxHosts,
    Network,
    Prefix,
    Ptr,
    Qualifier,
    SpfRecord,
    parse,
)
from forwarder.model.address import Address, AddressError, canonical_name
from forwarder.ports import DnsStatus, Resolver

_SHOWN_TERM = 128  # characters of the deciding term
_SHOWN_REASON = 400
_UNPRINTABLE = re.compile(r"[^ -~]")
_EXPLANATION_OCTETS = 4096  # of the TXT record, before it is filled in


class SpfStatus(Enum):
    """What a check came to (RFC 7208 2.6)."""

    NONE = "none"  # no domain to check, or it publishes no record
    NEUTRAL = "neutral"  # the domain says nothing about this client
    PASS = "pass"  # noqa: S105 - the client may send for the domain
    FAIL = "fail"  # it may not
    SOFTFAIL = "softfail"  # it probably may not
    TEMPERROR = "temperror"  # DNS did not answer; later it may
    PERMERROR = "permerror"  # the record is wrong, or asks for too much


@dataclass(frozen=True, slots=True)
class SpfResult:
    """One identity checked. `domain` is canonical, "" where the identity has none.

    `mechanism` is the term that decided, as the record spells it, or "default"; "" when no term was reached.
    `reason` is empty only for a pass. `explanation` is printable ASCII of strangers, "" unless asked for.
    """

    status: SpfStatus
    domain: str
    mechanism: str
    reason: str
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class SpfCheck:
    """Both identities of a transaction. For the null sender they are the same (RFC 7208 2.4)."""

    mail_from: SpfResult
    helo: SpfResult

    @property
    def authenticated_domain(self) -> str:
        """The domain of the MAIL FROM identity if it passes, else ""."""
        return self.mail_from.domain if self.mail_from.status is SpfStatus.PASS else ""


async def check(resolver: Resolver, ip: str, helo: str, sender: Address | None, *, receiver: str, now: int) -> SpfCheck:
    """Check both identities; `sender` is None for the null sender, `now` is in Unix seconds."""
    if sender is None:  # RFC 7208 2.4
        by_helo = await check_host(resolver, ip, helo, f"postmaster@{helo}", helo, receiver=receiver, now=now)
        return SpfCheck(by_helo, by_helo)
    identity = f"{sender.local}@{sender.domain}"
    # The identity that counts comes first: a stranger's slow HELO record shall not use up its time.
    mail_from = await check_host(resolver, ip, sender.domain, identity, helo, receiver=receiver, now=now)
    by_helo = await check_host(resolver, ip, helo, f"postmaster@{helo}", helo, receiver=receiver, now=now)
    return SpfCheck(mail_from, by_helo)


async def check_host(  # noqa: PLR0913 - RFC 7208 4.1 names the arguments
    resolver: Resolver,
    ip: str,
    domain: str,
    sender: str,
    helo: str,
    *,
    receiver: str = "unknown",
    now: int = 0,
    explain: bool = False,
) -> SpfResult:
    """Say whether `ip` may send for `domain` (RFC 7208 4.1). `explain` fetches the domain's text for a fail."""
    try:
        client = parse_client(ip)
    except ValueError:
        return SpfResult(SpfStatus.NONE, "", "", "the client has no IP address")
    name = _checkable(domain)
    if not name:
        return SpfResult(SpfStatus.NONE, "", "", "the identity is not a domain name with at least two labels")
    values = _values(client, sender, name, helo) | {"r": receiver or "unknown", "t": str(now)}
    evaluation = _Evaluation(Lookups(resolver, client), resolver, client, values)
    result, exp = await evaluation.check(name)
    if explain and exp and result.status is SpfStatus.FAIL:
        return replace(result, explanation=await evaluation.explain(exp))
    return result


def _checkable(domain: str) -> str:
    """Give the domain in A-labels, or "" for what RFC 7208 4.3 answers with none."""
    try:
        name = canonical_name(domain)  # RFC 7208 4.3: U-labels become A-labels
    except AddressError:
        return ""
    _, dot, last = name.rpartition(".")
    return name if dot and not last.isdigit() and can_be_asked(name) else ""


def _values(client: Client, sender: str, domain: str, helo: str) -> dict[str, str]:
    """Give the values of the macro letters (RFC 7208 7.2), but p."""
    local, _, host = sender.rpartition("@")
    local = local or "postmaster"  # RFC 7208 4.3
    host = _checkable(host) or host
    ip = client.address
    dotted = str(ip) if isinstance(ip, IPv4Address) else ".".join(ip.exploded.replace(":", "").upper())
    version = "ip6" if client.is_ipv6 else "in-addr"
    letters = {"s": f"{local}@{host}", "l": local, "o": host, "d": domain, "h": helo}
    return letters | {"i": dotted, "v": version, "c": str(ip)}


_STATUS = {
    Qualifier.PASS: SpfStatus.PASS,
    Qualifier.FAIL: SpfStatus.FAIL,
    Qualifier.SOFTFAIL: SpfStatus.SOFTFAIL,
    Qualifier.NEUTRAL: SpfStatus.NEUTRAL,
}
_VERDICT = {
    SpfStatus.FAIL: "is not allowed to send for",
    SpfStatus.SOFTFAIL: "is probably not allowed to send for",
    SpfStatus.NEUTRAL: "is neither allowed nor forbidden to send for",
}


@dataclass(frozen=True, slots=True)
class _Explanation:
    """An exp= that applies, and the domain whose record it stands in."""

    target: MacroString
    domain: str


_Found = tuple[SpfResult, _Explanation | None]


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One check_host() with all that it recurses into."""

    lookups: Lookups
    resolver: Resolver
    client: Client
    values: dict[str, str]

    async def check(self, domain: str) -> _Found:
        """Find the record of a domain and evaluate it (RFC 7208 4.3 to 4.7)."""
        if not can_be_asked(domain):  # RFC 7208 4.3; only include and redirect come here with such
            return self._ended(SpfStatus.NONE, domain, "the target is no name that DNS can hold")
        try:
            record = await self._record(domain)
        except TemporaryTrouble as trouble:
            return self._ended(SpfStatus.TEMPERROR, domain, str(trouble))
        except PermanentTrouble as trouble:
            return self._ended(SpfStatus.PERMERROR, domain, str(trouble))
        if record is None:  # RFC 7208 4.5
            return self._ended(SpfStatus.NONE, domain, f"{domain} publishes no SPF record")
        return await self._evaluate(record, domain)

    async def _record(self, domain: str) -> SpfRecord | None:
        records = await self.lookups.policies(domain)
        if len(records) > 1:  # RFC 7208 4.5
            raise PermanentTrouble(f"{domain} publishes more than one SPF record")
        try:
            return parse(records[0]) if records else None
        except SpfSyntaxError as error:  # RFC 7208 4.6
            raise PermanentTrouble(f"the SPF record of {domain} is malformed: {error}") from None

    async def _evaluate(self, record: SpfRecord, domain: str) -> _Found:
        term = ""
        try:
            for directive in record.directives:  # RFC 7208 4.6.2: left to right, the first match decides
                term = directive.text
                if await self._matches(directive.mechanism, domain):
                    return self._decided(directive, record, domain)
            if record.redirect is not None:
                term = "redirect"
                return await self._redirect(record.redirect, domain)
        except TemporaryTrouble as trouble:
            return self._ended(SpfStatus.TEMPERROR, domain, str(trouble), term)
        except PermanentTrouble as trouble:
            return self._ended(SpfStatus.PERMERROR, domain, f"the SPF record of {domain}: {trouble}", term)
        reason = f"no term of the SPF record of {domain} matches {self.client.address}"
        return self._ended(SpfStatus.NEUTRAL, domain, reason, "default")  # RFC 7208 4.7

    def _decided(self, directive: Directive, record: SpfRecord, domain: str) -> _Found:
        status = _STATUS[directive.qualifier]
        verdict = _VERDICT.get(status)
        reason = f"{self.client.address} {verdict} {domain}" if verdict else ""
        exp = _Explanation(record.explanation, domain) if record.explanation else None
        return self._ended(status, domain, reason, directive.text)[0], exp

    def _ended(self, status: SpfStatus, domain: str, reason: str, mechanism: str = "") -> _Found:
        return SpfResult(status, domain, _shown(mechanism, _SHOWN_TERM), _shown(reason, _SHOWN_REASON)), None

    async def _redirect(self, target: MacroString, domain: str) -> _Found:
        self.lookups.begin_term()
        found, exp = await self.check(await self._name(target, domain) or "")
        if found.status is SpfStatus.NONE:  # RFC 7208 6.1
            raise PermanentTrouble(f"redirect leads to no record: {found.reason}")
        # RFC 7208 6.2: an explanation of the redirecting record is not used
        return replace(found, domain=domain, mechanism=found.mechanism or "redirect"), exp

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        return bool(await _MATCHERS[type(mechanism)](self, mechanism, domain))

    async def _all(self, _: All, domain: str) -> bool:
        return True

    async def _network(self, network: Network, domain: str) -> bool:
        ip = self.client.address
        return ip.version == network.version and not (int(ip) ^ network.address) >> network.shift

    async def _include(self, mechanism: Include, domain: str) -> bool:
        self.lookups.begin_term()
        name = await self._name(mechanism.target, domain)
        if name is None:
            return False
        found, _ = await self.check(name)
        if found.status is SpfStatus.TEMPERROR:  # RFC 7208 5.2, the table
            raise TemporaryTrouble(found.reason)
        if found.status in (SpfStatus.PERMERROR, SpfStatus.NONE):
            raise PermanentTrouble(f"include leads to no usable record: {found.reason}")
        return found.status is SpfStatus.PASS

    async def _a(self, mechanism: A, domain: str) -> bool:
        self.lookups.begin_term()
        name = await self._name(mechanism.target, domain)
        return name is not None and await self._is_address_of(name, mechanism.prefix)

    async def _mx(self, mechanism: MxHosts, domain: str) -> bool:
        self.lookups.begin_term()
        name = await self._name(mechanism.target, domain)
        for host in await self.lookups.mail_hosts(name) if name else ():
            if await self._is_address_of(host, mechanism.prefix):
                return True
        return False

    async def _ptr(self, mechanism: Ptr, domain: str) -> bool:
        self.lookups.begin_term()
        name = await self._name(mechanism.target, domain)
        return bool(name and await self.lookups.confirmed_name(name, within=True))

    async def _exists(self, mechanism: Exists, domain: str) -> bool:
        self.lookups.begin_term()
        name = await self._name(mechanism.target, domain)
        return name is not None and await self.lookups.exists(name)

    async def _is_address_of(self, name: str, prefix: Prefix) -> bool:
        ip = self.client.address
        shift = 128 - prefix.ip6 if self.client.is_ipv6 else 32 - prefix.ip4
        return any(not (int(ip) ^ int(found)) >> shift for found in await self.lookups.addresses(name))

    async def _name(self, target: MacroString | None, domain: str) -> str | None:
        """Give the name that a term speaks of; None when it can match nothing (RFC 8616 4)."""
        if target is None:
            return domain
        if target.uses("sl") and not self.values["l"].isascii():
            return None
        if target.uses("p") and not self.lookups.knows_reverse_names:
            self.lookups.begin_term()  # RFC 7208 4.6.4: its PTR question is one of the ten
        return expand_name(target, await self._letters(target, domain)).lower()

    async def _letters(self, text: MacroString, domain: str) -> dict[str, str]:
        values = self.values | {"d": domain}
        if text.uses("p"):
            values["p"] = await self.lookups.confirmed_name(domain, within=False) or "unknown"  # RFC 7208 7.3
        return values

    async def explain(self, exp: _Explanation) -> str:
        """Give the domain's words for a fail, or "" where it has none that can be used (RFC 7208 6.2)."""
        self.lookups.stop_counting()
        try:
            name = expand_name(exp.target, await self._letters(exp.target, exp.domain)).lower()
            answer = await self.resolver.txt(name) if can_be_asked(name) else None
            if answer is None or answer.status is not DnsStatus.FOUND or len(answer.records) != 1:
                return ""
            if len(answer.records[0]) > _EXPLANATION_OCTETS:
                return ""
            text = parse_explanation(answer.records[0].decode("ascii"))
            return expand_text(text, await self._letters(text, exp.domain))
        except (SpfSyntaxError, UnicodeDecodeError):
            return ""


def _shown(text: str, length: int) -> str:
    """Give a text that may hold pieces of names and records as one bounded line of printable ASCII."""
    clean = _UNPRINTABLE.sub("?", text[: length + 1])
    return clean if len(clean) <= length else clean[: length - 3] + "..."


_Matcher = Callable[[_Evaluation, Any, str], Awaitable[bool]]
_MATCHERS: dict[type[Any], _Matcher] = {
    All: _Evaluation._all,
    Include: _Evaluation._include,
    A: _Evaluation._a,
    MxHosts: _Evaluation._mx,
    Ptr: _Evaluation._ptr,
    Network: _Evaluation._network,
    Exists: _Evaluation._exists,
}
