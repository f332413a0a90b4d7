"""SPF that lets this host send and nobody whom it should not (RFC 7208), evaluated as receivers do."""

from collections.abc import Collection

from forwarder.auth.spf.record import SpfSyntaxError, parse, select
from forwarder.auth.spf.verify import SpfResult, SpfStatus, check_host
from forwarder.ops.dnscheck.finding import Finding, Questions, Subject, texts
from forwarder.ops.records import quoted
from forwarder.ports import DnsStatus

_NOBODY = "240.0.0.77"  # RFC 1112 4: reserved; no record names it, so every term is gone through


async def check_spf(
    resolver: Questions, domain: str, addresses: Collection[str], expected: str = "", *, needed: bool = True
) -> list[Finding]:
    """Check the record of a domain. Where it is needed, it must be there and pass for all of the addresses."""
    subject = Subject(domain, domain, "TXT", quoted(expected) if expected else "")
    answer = await resolver.txt(domain)
    if answer.status is DnsStatus.FAILED:
        return [subject.unanswered(answer)]
    found = select(answer.records)
    if not found:
        return [subject.missing(f"add: {domain}. TXT {subject.expected}")] if needed else []
    there = texts(found)
    if len(found) > 1:
        return [subject.different(there, "make one SPF record of them: several count as an error (RFC 7208 4.5)")]
    try:
        parse(found[0])
    except SpfSyntaxError as error:
        return [subject.different(there, f"correct the SPF record: {error}")]
    return [await _outcome(resolver, subject, there, addresses if needed else ())]


async def _outcome(resolver: Questions, subject: Subject, there: str, addresses: Collection[str]) -> Finding:
    """Evaluate a record that can be read: for nobody, then for those that must pass."""
    stranger = await _evaluated(resolver, subject.name, _NOBODY)
    if finding := _of_stranger(subject, there, stranger):
        return finding
    for address in addresses:
        result = await _evaluated(resolver, subject.name, address)
        if result.status is not SpfStatus.PASS:
            return _of_host(subject, there, address, result)
    if stranger.status in (SpfStatus.NEUTRAL, SpfStatus.NONE):
        return subject.warning(there, 'end the SPF record in "-all" or "~all": it rules out nobody')
    return subject.ok(there)


async def _evaluated(resolver: Questions, domain: str, address: str) -> SpfResult:
    return await check_host(resolver, address, domain, f"postmaster@{domain}", domain)


def _of_stranger(subject: Subject, there: str, result: SpfResult) -> Finding | None:
    """Say what it means that this came out for an address that is nobody's."""
    match result.status:
        case SpfStatus.PASS:
            return subject.different(there, f'take "{result.mechanism}" out: it lets everybody send for {subject.name}')
        case SpfStatus.PERMERROR:  # more than ten look-ups, a loop, an include without a record
            return subject.different(there, f"correct the SPF record, which counts as an error: {result.reason}")
        case SpfStatus.TEMPERROR:
            return subject.untold(result.reason)
        case _:
            return None


def _of_host(subject: Subject, there: str, address: str, result: SpfResult) -> Finding:
    if result.status is SpfStatus.TEMPERROR:
        return subject.untold(result.reason)
    term = f"ip6:{address}" if ":" in address else f"ip4:{address}"
    return subject.different(there, f"add {term} before its end: this host, {address}, gets {result.status.value}")
