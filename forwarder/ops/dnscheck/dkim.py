"""Keys in DNS as they are on disk (RFC 6376 3.6)."""

from forwarder.auth.dkim.record import KeyRecord, KeyRecordError, parse_key
from forwarder.ops.dnscheck.finding import Finding, Questions, Subject, texts
from forwarder.ops.records import DkimRecord, quoted
from forwarder.ports import DnsStatus


async def check_keys(resolver: Questions, domain: str, keys: tuple[DkimRecord, ...]) -> list[Finding]:
    """Check all keys of a domain."""
    found = [await check_key(resolver, key) for key in keys]
    if any(finding.there for finding in found):
        answer = await resolver.txt(f"_domainkey.{domain}")
        if answer.status is DnsStatus.NXDOMAIN:  # RFC 8020 2: then there is nothing below it either
            subject = Subject(domain, f"_domainkey.{domain}", "TXT")
            fix = (
                "your name server says that this name does not exist, though names below it do: resolvers may then "
                "find no key at all (RFC 8020); let its operator correct that, or put any TXT record there"
            )
            found.append(subject.warning("NXDOMAIN", fix))
    return found


async def check_key(resolver: Questions, key: DkimRecord) -> Finding:
    """Check that a key's record is live and holds this very key."""
    subject = Subject(key.domain, key.name, "TXT", quoted(key.text))
    answer = await resolver.txt(key.name)
    if answer.status is DnsStatus.FAILED:
        return subject.unanswered(answer)
    if answer.status is not DnsStatus.FOUND:
        if not key.needed:
            return subject.warning("", f"it was removed early: {key.note}")
        return subject.missing(f"add: {key.name}. TXT {subject.expected}")
    there = texts(answer.records)
    if flaw := _flaw(answer.records, parse_key(key.text.encode())):
        return subject.different(there, flaw)
    if parse_key(answer.records[0]).testing:
        return subject.warning(there, "take t=y out: it asks receivers to treat signed mail as unsigned")
    return subject.ok(there)


def _flaw(records: tuple[bytes, ...], expected: KeyRecord) -> str:
    """Say how what is there differs from the record that belongs there, and what to do."""
    if len(records) > 1:
        return "leave one TXT record there: what several mean is undefined (RFC 6376 3.6.2.2)"
    if b"\\" in records[0] or b'"' in records[0]:
        return "take the backslashes and quotation marks out of the text: they belong to zone files only"
    try:
        return _difference(parse_key(records[0]), expected)
    except KeyRecordError as error:
        return f"put the expected text in its place: {error}"


def _difference(found: KeyRecord, expected: KeyRecord) -> str:
    if found.kind != expected.kind:
        return f"put the expected text in its place: k= is {found.kind}, the key is {expected.kind}"
    if not found.key:
        return "put the expected text in its place: an empty p= revokes the key"
    if found.key == expected.key:
        return ""
    if expected.key.startswith(found.key):
        return (
            f"enter it again in full: p= is cut off after {len(found.key)} of {len(expected.key)} octets; some panels "
            "want a long text in several strings of at most 255 characters"
        )
    return "put the expected text in its place: p= is another key"
