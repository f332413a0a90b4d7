"""The DMARC policy of a domain, and whether reports about it may go where it wants them (RFC 9989, RFC 9990)."""

from collections.abc import Iterable

from forwarder.auth.dmarc.organisation import TreeWalks, public_organisation
from forwarder.auth.dmarc.record import Alignment, DmarcRecord, parse_record
from forwarder.model.address import AddressError, canonical_name
from forwarder.ops.dnscheck.finding import Finding, Questions, Subject, texts
from forwarder.ports import DnsStatus


async def check_dmarc(resolver: Questions, domain: str, expected: str, *, lent_spf: bool = False) -> list[Finding]:
    """Check the policy that applies to a domain: any that can be used will do.

    `lent_spf` says that SPF of what we forward is aligned with the domain unless aspf=s forbids it.
    """
    name = f"_dmarc.{domain}"
    subject = Subject(domain, name, "TXT", expected)
    answer = await resolver.txt(name)
    if answer.status is DnsStatus.FAILED:
        return [subject.unanswered(answer)]
    found = [record for octets in answer.records if (record := parse_record(octets)) is not None]
    there = texts(octets for octets in answer.records if parse_record(octets) is not None)
    if len(found) > 1:
        return [subject.different(there, "leave one DMARC record: several are all ignored (RFC 9989 4.10)")]
    if not found:
        return [await _inherited(resolver, subject, lent_spf=lent_spf)]
    if not found[0].usable:
        return [subject.different(there, "correct it: without a valid p= and without rua= there is no DMARC")]
    first = _alignment(subject, there, found[0], lent_spf=lent_spf)
    return [first, *await _report_permissions(resolver, domain, found[0].aggregate)]


def _alignment(subject: Subject, there: str, record: DmarcRecord, *, lent_spf: bool) -> Finding:
    if not lent_spf or record.spf is Alignment.STRICT:
        return subject.ok(there)
    fix = (
        f"add aspf=s: SPF of all that is forwarded here counts for {subject.owner} as well, so that forged mail in its "
        "name passes DMARC at your inbox"
    )
    return subject.warning(there, fix)


async def _inherited(resolver: Questions, subject: Subject, *, lent_spf: bool) -> Finding:
    walk = await TreeWalks(resolver).walk(subject.owner)
    if walk.unanswered:
        return subject.untold(walk.unanswered)
    if walk.policy is not None and walk.policy.record.usable:
        there = f"none of its own; that of {walk.policy.domain} applies: {walk.policy.record.text}"
        return _alignment(subject, there, walk.policy.record, lent_spf=lent_spf)
    return subject.missing(f"add: {subject.name}. TXT {subject.expected}")


async def _report_permissions(resolver: Questions, domain: str, uris: Iterable[str]) -> list[Finding]:
    """Check that the domains which reports go to want them (RFC 9990 4)."""
    found = []
    for target in sorted({_host(uri) for uri in uris} - {""}):
        if public_organisation(target) == public_organisation(domain):
            continue
        subject = Subject(domain, f"{domain}._report._dmarc.{target}", "TXT", '"v=DMARC1;"')
        answer = await resolver.txt(subject.name)
        if answer.status is DnsStatus.FAILED:
            found.append(subject.unanswered(answer))
        elif any(parse_record(octets) for octets in answer.records):
            found.append(subject.ok(texts(answer.records)))
        else:
            fix = f"no reports will come: {target} must publish this record, or rua= name an address at {domain}"
            found.append(subject.warning(texts(answer.records), fix))
    return found


def _host(uri: str) -> str:
    """Give the domain of a mailto: URI, "" for another."""
    scheme, _, rest = uri.partition(":")
    try:
        return canonical_name(rest.partition("?")[0].rpartition("@")[2]) if scheme.lower() == "mailto" else ""
    except AddressError:
        return ""
