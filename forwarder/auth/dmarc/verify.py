"""The DMARC check (RFC 9989 5.3): does an authenticated domain belong to the author's, and which policy applies?

`verify` takes what SPF and DKIM found and never raises for what a message or DNS may hold. It asks at most
`MAX_QUERIES` names per walk and walks from the author's domain and from such passing domains only as could be of the
same organisation (at most one by SPF and ten by DKIM); names in common are asked for once.

A message without exactly one author domain (RFC 9989 4.4, 5.3.1, 11.5) is PERMERROR: DMARC cannot speak about it, so
nothing may make it pass. Its policy is the strictest of the domains that it names, or the next forger writes two From
fields; REJECT where they cannot be told; NONE where From names nobody, as nobody is impersonated by that.

A check that DNS left open is TEMPERROR (RFC 9989 5.3.6). Its policy is the strictest that the missing answers could
bring to bear: NONE when the message passes whatever they are.

What counts as authenticated: the SPF domain of a pass, which for the null sender is that of HELO (RFC 9989 3.2.4), and
d= of each signature that is right (RFC 9989 4.4.1). A key in test mode (t=y) makes no difference to that. A signature
that leaves out the end of the body (l=) counts only while nothing was appended.

Left out on purpose: what is done with the message (`policy.dmarc`) and reports.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.from_header import Author, author_domain
from forwarder.auth.dmarc.organisation import Found, TreeWalks, Walk, is_within, public_organisation
from forwarder.auth.dmarc.record import Alignment, DmarcRecord, Policy
from forwarder.auth.spf.verify import SpfCheck, SpfStatus
from forwarder.model.headers import Header
from forwarder.ports import DnsStatus, Resolver

_SHOWN = 3  # signatures that a reason speaks of
_SHOWN_REASON = 400  # characters
_UNPRINTABLE = re.compile(r"[^ -~]")


class DmarcStatus(Enum):
    """What the check came to (RFC 9989 9.2, RFC 8601 2.7)."""

    NONE = "none"  # no policy is published for the author's domain
    PASS = "pass"  # noqa: S105 - the use of the author's domain is authorised by its owner
    FAIL = "fail"  # nothing shows that it is
    TEMPERROR = "temperror"  # DNS left it open; later it may not
    PERMERROR = "permerror"  # the message has no author domain that could be checked


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """The result for a message. Domains are canonical; `reason` is printable ASCII and empty only for PASS.

    `from_domain` is "" for PERMERROR. `policy` is what to apply on failure, sp, np and t considered; with TEMPERROR the
    strictest that is possible. `organisation` is by the tree walk ("" where it was not found out), `psl_organisation`
    by the public suffix list. `aligned_spf` and `aligned_dkim` say which identifiers are aligned; `aligned_both` that
    one of them is so by the list as well. `published` is the record that applies, at `policy_domain`.
    """

    status: DmarcStatus
    from_domain: str
    policy: Policy
    organisation: str = ""
    psl_organisation: str = ""
    aligned_both: bool = False
    aligned_spf: bool = False
    aligned_dkim: bool = False
    published: str = ""
    reason: str = ""
    policy_domain: str = ""


async def verify(resolver: Resolver, header: Header, spf: SpfCheck, dkim: Sequence[DkimResult]) -> DmarcResult:
    """Check a message by its header and what SPF and DKIM found."""
    author = author_domain(header)
    walks = TreeWalks(resolver)
    if not author.domain:
        policy = await _strictest(resolver, walks, author)
        return DmarcResult(DmarcStatus.PERMERROR, "", policy, reason=author.reason)
    walk = await walks.walk(author.domain)
    found = walk.policy
    if found is None:
        return _without_record(walk, spf, dkim)
    if not found.record.usable:  # RFC 9989 4.10.1
        reason = f"the policy of {found.domain} is not valid and asks for no reports"
        return _result(DmarcStatus.NONE, walk, Policy.NONE, found=found, reason=reason)
    comparison = await _compare(walks, walk, found.record, _identifiers(spf, dkim))
    policy, doubt = await _policy(resolver, author.domain, found)
    if comparison.passes:
        return _result(DmarcStatus.PASS, walk, policy, comparison, found)
    unanswered = comparison.unanswered or doubt
    if unanswered:
        return _result(DmarcStatus.TEMPERROR, walk, policy, comparison, found, unanswered)
    return _result(DmarcStatus.FAIL, walk, policy, comparison, found, _failure(author.domain, spf, dkim))


async def _strictest(resolver: Resolver, walks: TreeWalks, author: Author) -> Policy:
    """Give the strictest policy of those whom a message without one author may be said to be from."""
    if not author.claimed:
        return Policy.NONE
    policies = []
    for domain in author.named:
        walk = await walks.walk(domain)
        if walk.policy is not None and walk.policy.record.usable:
            policies.append((await _policy(resolver, domain, walk.policy))[0])
        elif walk.unanswered:
            policies.append(Policy.REJECT)
    if not author.named:
        return Policy.REJECT
    return max(policies, key=_STRICTNESS.index, default=Policy.NONE)


class _Method(Enum):
    SPF = "SPF"
    DKIM = "DKIM"


@dataclass(frozen=True, slots=True)
class _Identifier:
    """A domain that is authenticated, or that would be if DNS had answered: `unanswered` says what it did not."""

    method: _Method
    domain: str
    unanswered: str = ""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """What is aligned. `unanswered` is not empty when something else might have been."""

    aligned_spf: bool = False
    aligned_dkim: bool = False
    aligned_both: bool = False
    unanswered: str = ""

    @property
    def passes(self) -> bool:
        return self.aligned_spf or self.aligned_dkim


_NOTHING = _Comparison()


def _identifiers(spf: SpfCheck, dkim: Sequence[DkimResult]) -> Iterable[_Identifier]:
    """Give the authenticated domains and those in doubt, each once."""
    if spf.authenticated_domain:
        yield _Identifier(_Method.SPF, spf.authenticated_domain)
    elif spf.mail_from.status is SpfStatus.TEMPERROR:
        yield _Identifier(_Method.SPF, spf.mail_from.domain, f"SPF: {spf.mail_from.reason}")
    passed = {result.domain for result in dkim if _is_believed(result)}
    doubtful = {result.domain: result.reason for result in dkim if result.status is DkimStatus.TEMPERROR}
    yield from (_Identifier(_Method.DKIM, domain) for domain in sorted(passed))
    yield from (_Identifier(_Method.DKIM, domain, f"DKIM: {reason}") for domain, reason in sorted(doubtful.items()))


def _is_believed(result: DkimResult) -> bool:
    return result.status is DkimStatus.PASS and not result.body_extended


async def _compare(
    walks: TreeWalks, author: Walk, record: DmarcRecord, identifiers: Iterable[_Identifier]
) -> _Comparison:
    """Compare every identifier with the author's domain (RFC 9989 4.10.2)."""
    aligned = set()
    both = False
    unanswered = ""
    for identifier in identifiers:
        mode = record.spf if identifier.method is _Method.SPF else record.dkim
        answer = await _alignment(walks, author, identifier.domain, mode)
        if answer.is_aligned and not identifier.unanswered:
            aligned.add(identifier.method)
            both = both or public_organisation(identifier.domain) == public_organisation(author.start)
        elif answer.is_aligned or answer.unanswered:
            unanswered = unanswered or identifier.unanswered or answer.unanswered
    return _Comparison(_Method.SPF in aligned, _Method.DKIM in aligned, both, unanswered)


@dataclass(frozen=True, slots=True)
class _Aligned:
    is_aligned: bool
    unanswered: str = ""


async def _alignment(walks: TreeWalks, author: Walk, domain: str, mode: Alignment) -> _Aligned:
    """Compare one domain with the author's, asking no more than is needed to tell."""
    if domain == author.start:
        return _Aligned(True)
    if mode is Alignment.STRICT or not _could_be_related(author, domain):
        return _Aligned(False)
    if author.unanswered:
        return _Aligned(False, author.unanswered)
    walk = await walks.walk(domain)
    return _Aligned(walk.organisation == author.organisation, walk.unanswered)


def _could_be_related(author: Walk, domain: str) -> bool:
    """Say whether one organisation could hold both: it is at or above each of them."""
    if author.unanswered:
        return author.start.rpartition(".")[2] == domain.rpartition(".")[2]
    return is_within(domain, author.organisation)


async def _policy(resolver: Resolver, author: str, found: Found) -> tuple[Policy, str]:
    """Give the policy to apply (RFC 9989 4.10.1), and what DNS left open, with which the stricter one is given."""
    record = found.record
    if author == found.domain:
        return _lowered(record.policy, record), ""
    existing = record.subdomains or record.policy
    nonexistent = record.nonexistent or existing  # RFC 9989 4.7: np
    if existing is nonexistent:
        return _lowered(existing, record), ""
    exists, unanswered = await _exists(resolver, author)
    if unanswered:
        return _lowered(max(existing, nonexistent, key=_STRICTNESS.index), record), unanswered
    return _lowered(existing if exists else nonexistent, record), ""


_STRICTNESS = (Policy.NONE, Policy.QUARANTINE, Policy.REJECT)


def _lowered(policy: Policy, record: DmarcRecord) -> Policy:
    """Apply the test mode, one level down (RFC 9989 4.7: t)."""
    return _STRICTNESS[max(0, _STRICTNESS.index(policy) - 1)] if record.testing else policy


async def _exists(resolver: Resolver, name: str) -> tuple[bool, str]:
    """Say whether a name exists: NXDOMAIN speaks for all types (RFC 9989 3.2.13, RFC 8020 2).

    Some name servers say NXDOMAIN where they mean that there is no such record, so all types that mail is about must
    agree. The second value says what was not answered.
    """
    unanswered = ""
    for question in (
        lambda: resolver.addresses(name, ipv6=False),
        lambda: resolver.addresses(name, ipv6=True),
        lambda: resolver.mx(name),
    ):
        answer = await question()
        if answer.status in (DnsStatus.FOUND, DnsStatus.NODATA):
            return True, ""
        unanswered = unanswered or answer.reason
    return False, unanswered and f"DNS did not answer whether {name} exists: {unanswered}"


def _without_record(walk: Walk, spf: SpfCheck, dkim: Sequence[DkimResult]) -> DmarcResult:
    if not walk.unanswered:  # RFC 9989 4.10.1
        reason = f"no DMARC policy is published for {walk.start}"
        return _result(DmarcStatus.NONE, walk, Policy.NONE, reason=reason)
    # RFC 9989 4.10.2: the very domain of the author is aligned whatever the record would have said.
    same = {each.method for each in _identifiers(spf, dkim) if each.domain == walk.start and not each.unanswered}
    comparison = _Comparison(_Method.SPF in same, _Method.DKIM in same, bool(same))
    policy = Policy.NONE if same else Policy.REJECT
    return _result(DmarcStatus.TEMPERROR, walk, policy, comparison, reason=walk.unanswered)


def _result(
    status: DmarcStatus,
    walk: Walk,
    policy: Policy,
    comparison: _Comparison = _NOTHING,
    found: Found | None = None,
    reason: str = "",
) -> DmarcResult:
    return DmarcResult(
        status,
        from_domain=walk.start,
        policy=policy,
        organisation=walk.organisation,
        psl_organisation=public_organisation(walk.start),
        aligned_both=comparison.aligned_both,
        aligned_spf=comparison.aligned_spf,
        aligned_dkim=comparison.aligned_dkim,
        published=found.record.text if found else "",
        reason=_UNPRINTABLE.sub("?", reason[:_SHOWN_REASON]),
        policy_domain=found.domain if found else "",
    )


def _failure(author: str, spf: SpfCheck, dkim: Sequence[DkimResult]) -> str:
    signatures = "; ".join(_told_of_signature(result) for result in dkim[:_SHOWN]) or "no signature"
    return f"nothing shows that {author} sent it (SPF: {_told_of_spf(spf)}; DKIM: {signatures})"


def _told_of_spf(spf: SpfCheck) -> str:
    status, domain = spf.mail_from.status, spf.mail_from.domain or "no domain"
    return f"pass for {domain}, not aligned" if status is SpfStatus.PASS else f"{status.value} for {domain}"


def _told_of_signature(result: DkimResult) -> str:
    domain = result.domain or "no domain"
    if result.body_extended:
        return f"the signature of {domain} leaves out a part of the body"
    if result.status is DkimStatus.PASS:
        return f"pass for {domain}, not aligned"
    return f"{result.status.value} for {domain}"
