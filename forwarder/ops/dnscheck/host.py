"""The host's name and addresses, forwards and backwards: PTR = EHLO = A, which Gmail and others insist on."""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from forwarder.ops.dnscheck.finding import Finding, Questions, Subject
from forwarder.ports import DnsStatus

# The addresses of Cloudflare's proxy, as it lists them. It passes on no mail.
_PROXY = tuple(
    map(
        ip_network,
        (
            *("173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18"),
            *("108.162.192.0/18", "190.93.240.0/20", "188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17"),
            *("162.158.0.0/15", "104.16.0.0/13", "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22"),
            *("2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32"),
            *("2a06:98c0::/29", "2c0f:f248::/32"),
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Host:
    """What DNS says of the host: the addresses that are published, and what is to be said of them."""

    addresses: tuple[str, ...]
    findings: tuple[Finding, ...]


async def check_addresses(resolver: Questions, hostname: str, demanded: Collection[str], own: Collection[str]) -> Host:
    """Check A and AAAA: all demanded must be there, and none that is not `own`, as far as these are known."""
    alias = await resolver.cname(hostname)
    if alias.status is DnsStatus.FOUND:
        subject = Subject(hostname, hostname, "CNAME")
        fix = "put A and AAAA records in its place: no MX may lead to a CNAME (RFC 2181 10.3)"
        return Host((), (subject.different(f"{alias.records[0]}.", fix),))
    published: list[str] = []
    findings: list[Finding] = []
    for ipv6 in (False, True):
        version = 6 if ipv6 else 4
        wanted = sorted(each for each in demanded if ip_address(each).version == version)
        answer = await resolver.addresses(hostname, ipv6=ipv6)
        subject = Subject(hostname, hostname, "AAAA" if ipv6 else "A", ", ".join(wanted))
        published += answer.records
        if answer.status is DnsStatus.FAILED:
            findings.append(subject.unanswered(answer))
        elif answer.records:
            findings.append(_compared(subject, set(answer.records), set(wanted), {*own, *demanded}))
        elif wanted or not (ipv6 or demanded):
            findings.append(subject.missing(_add(subject, own)))
    return Host(tuple(published), tuple(findings))


def _add(subject: Subject, own: Collection[str]) -> str:
    known = sorted(each for each in own if (":" in each) == (subject.kind == "AAAA"))
    address = subject.expected or ", ".join(known) or "the public address of this host"
    return f"add: {subject.name}. {subject.kind} {address}"


def _compared(subject: Subject, there: set[str], wanted: set[str], ours: set[str]) -> Finding:
    shown = ", ".join(sorted(there))
    if proxied := sorted(each for each in there if _is_proxy(each)):
        fix = f"{', '.join(proxied)} is Cloudflare's proxy, which passes on no mail: set the record to DNS only"
        return subject.different(shown, fix)
    strangers = sorted(there - ours) if any((":" in each) == (subject.kind == "AAAA") for each in ours) else []
    if strangers:
        return subject.different(shown, f"remove {', '.join(strangers)}: no address of this host")
    if absent := sorted(wanted - there):
        return subject.different(shown, f"add: {subject.name}. {subject.kind} {', '.join(absent)}")
    return subject.ok(shown)


def _is_proxy(address: str) -> bool:
    return any(ip_address(address) in network for network in _PROXY)


async def check_ptr(resolver: Questions, hostname: str, address: str) -> Finding:
    """Check that an address points back to the host."""
    subject = Subject(hostname, ip_address(address).reverse_pointer, "PTR", f"{hostname}.")
    answer = await resolver.ptr(address)
    there = ", ".join(sorted(f"{name}." for name in answer.records))
    provider = f"ask the provider of {address} to set its reverse name to {hostname}"
    if ":" in address:
        provider += ", or remove the AAAA record and send by IPv4 only (delivery.ip)"
    if answer.status is DnsStatus.FAILED:
        return subject.unanswered(answer)
    if answer.status is not DnsStatus.FOUND:
        return subject.missing(provider)
    if hostname not in answer.records:
        return subject.different(there, f"{provider}{await _unconfirmed(resolver, answer.records, address)}")
    if len(answer.records) > 1:
        return subject.warning(there, f"let {address} have one name: some receivers look at the first only")
    return subject.ok(there)


async def _unconfirmed(resolver: Questions, names: tuple[str, ...], address: str) -> str:
    """Say which of the names do not lead back to the address either."""
    answers = [(name, await resolver.addresses(name, ipv6=":" in address)) for name in names]
    lost = [name for name, answer in answers if answer.status is not DnsStatus.FAILED and address not in answer.records]
    return f"; {', '.join(lost)} does not lead back to it either" if lost else ""


async def check_zone(resolver: Questions, domain: str) -> Finding:
    """Check that a domain exists and is in a zone that answers: some receivers ask for the SOA of a sender's domain."""
    subject = Subject(domain, domain, "SOA")
    name = domain
    while "." in name:
        answer = await resolver.soa(name)
        if answer.status is DnsStatus.FAILED:
            return subject.unanswered(answer)
        if answer.status is DnsStatus.NXDOMAIN and name == domain:
            return subject.missing(f"{domain} does not exist, and receivers refuse senders of it: publish its records")
        if answer.status is DnsStatus.FOUND:
            return subject.ok(f"{answer.records[0]}. (zone {name})")
        name = name.partition(".")[2]
    return subject.missing(f"no zone with a SOA is in charge of {domain}: register or delegate it")
