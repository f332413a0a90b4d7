"""Mail for a domain comes to this host: its MX records, and where else they lead (RFC 5321 5.1)."""

from collections.abc import Collection

from forwarder.ops.dnscheck.finding import Finding, Questions, Subject
from forwarder.ports import DnsStatus, Mx


async def check_mx(resolver: Questions, hostname: str, domain: str, ours: Collection[str]) -> list[Finding]:
    """Check a domain's MX records; `ours` are the addresses of this host as far as they are known."""
    mx = Subject(domain, domain, "MX", f"10 {hostname}.")
    alias = await resolver.cname(domain)
    if alias.status is DnsStatus.FOUND:
        fix = f"remove the CNAME, which lets nothing stand beside it (RFC 1034 3.6.2), then add: {mx.expected}"
        return [mx.different(f"CNAME {alias.records[0]}.", fix)]
    answer = await resolver.mx(domain)
    if answer.status is DnsStatus.FAILED:
        return [mx.unanswered(answer)]
    if answer.status is not DnsStatus.FOUND:
        what = "the name does not exist" if answer.status is DnsStatus.NXDOMAIN else "the name has no MX"
        return [mx.missing(f"{what}: add: {domain}. MX {mx.expected}")]
    found = await _exchanges(resolver, mx, hostname, answer.records, ours)
    wild = await resolver.mx(f"*.{domain}")
    if wild.status is DnsStatus.FOUND:
        subject = Subject(domain, f"*.{domain}", "MX")
        fix = "remove it: mail for every name below the domain would come here and be refused"
        found.append(subject.warning(_shown(wild.records), fix))
    return found


async def _exchanges(
    resolver: Questions, mx: Subject, hostname: str, records: tuple[Mx, ...], ours: Collection[str]
) -> list[Finding]:
    there = _shown(records)
    hosts = [record.host for record in sorted(records, key=lambda each: (each.preference, each.host))]
    if "" in hosts:
        return [mx.different(there, f'remove "0 .", which says that {mx.owner} takes no mail (RFC 7505)')]
    others = [(host, await _elsewhere(resolver, host, ours)) for host in hosts if host != hostname]
    if hostname in hosts:
        found = [mx.ok(there)]
    elif any(not problem for _, problem in others):
        found = [mx.warning(there, f"it leads to this host by another name: {hostname} is what its PTR and EHLO say")]
    else:
        return [mx.different(there, _replacement(mx, others))]
    for host, problem in others:
        if problem:
            broken = problem.startswith(_BROKEN)
            tell = mx.different if broken else mx.warning
            found.append(tell(f"{host}.", f"remove it, or make it a name of this host: {problem}"))
    return found


_BROKEN = ("it is a CNAME", "it has no address")


def _replacement(mx: Subject, others: list[tuple[str, str]]) -> str:
    reasons = "; ".join(f"{host}: {problem}" for host, problem in others)
    return f"put {mx.expected} in its place ({reasons})"


async def _elsewhere(resolver: Questions, host: str, ours: Collection[str]) -> str:
    """Say what is wrong with an exchange that is not this host by name; "" if it is, or DNS did not answer."""
    alias = await resolver.cname(host)
    if alias.status is DnsStatus.FOUND:
        return f"it is a CNAME for {alias.records[0]}, which no MX may lead to (RFC 2181 10.3)"
    answers = [await resolver.addresses(host, ipv6=ipv6) for ipv6 in (False, True)]
    addresses = {address for answer in answers for address in answer.records}
    if addresses & set(ours) or any(answer.status is DnsStatus.FAILED for answer in answers):
        return ""
    if not addresses:
        return "it has no address"
    return f"it is {', '.join(sorted(addresses))}, not this host, and what it takes is not forwarded from here"


def _shown(records: tuple[Mx, ...]) -> str:
    return ", ".join(sorted(f"{record.preference} {record.host}." for record in records))
