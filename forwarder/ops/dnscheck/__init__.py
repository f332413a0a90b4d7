"""Live DNS against what the gateway needs: for each record whether it is right, what is there, and what to do.

`check` asks for everything at once and gives findings in the order of `Site.owners`. It never raises for what DNS may
answer; what DNS did not answer is UNANSWERED, which says nothing about the record.

A record is held against what it is for, not against the letters that `ops.records` prints: SPF is evaluated, a key is
compared as a key, any valid DMARC policy will do.

Left out on purpose: what takes more than DNS: port 25, certificates (so TLSA and MTA-STS), blocklists.
"""

import asyncio
from collections.abc import Collection

from forwarder.auth.dmarc.organisation import is_within
from forwarder.ops.dnscheck.dkim import check_key, check_keys
from forwarder.ops.dnscheck.dmarc import check_dmarc
from forwarder.ops.dnscheck.finding import Finding, Questions, Status, Subject
from forwarder.ops.dnscheck.host import check_addresses, check_ptr, check_zone
from forwarder.ops.dnscheck.mx import check_mx
from forwarder.ops.dnscheck.spf import check_spf
from forwarder.ops.records import Record, Site, Use, is_lent_spf, records

__all__ = ["Finding", "Questions", "Status", "check", "check_key"]


async def check(
    resolver: Questions, site: Site, own: Collection[str] = (), only: Collection[str] | None = None
) -> tuple[Finding, ...]:
    """Check all records of a site, or those for the owners in `only`.

    `site.addresses` must all be published; `own` are the public addresses of this machine, any other is a mistake.
    """
    host = await check_addresses(resolver, site.hostname, site.addresses, own)
    addresses = site.addresses or host.addresses
    expected = {(record.name, record.kind, _is_spf(record)): record for record in records(site) if record.use in _LIVE}

    async def of(owner: str) -> list[Finding]:
        found: list[Finding] = []
        spf = expected.get((owner, "TXT", True))
        if (owner, "MX", False) in expected:
            found += await check_mx(resolver, site.hostname, owner, {*own, *addresses})
        if owner == site.srs_domain:
            found.append(await check_zone(resolver, owner))
        if owner == site.hostname:
            found += host.findings
            found += [await check_ptr(resolver, site.hostname, address) for address in addresses]
        found += await check_spf(resolver, owner, addresses, spf.data if spf else "", needed=spf is not None)
        found += await check_keys(resolver, owner, tuple(key for key in site.dkim if key.domain == owner))
        if policy := expected.get((f"_dmarc.{owner}", "TXT", False)):
            lent = owner in site.served and is_lent_spf(site, owner)
            found += await check_dmarc(resolver, owner, policy.presented, lent_spf=lent)
        if owner in site.served and not _is_signed(site, owner):
            found.append(_unsigned(owner))
        return found

    owners = dict.fromkeys((*site.owners, *(key.domain for key in site.dkim)))
    return tuple(
        finding
        for group in await asyncio.gather(*(of(owner) for owner in owners if only is None or owner in only))
        for finding in group
    )


_LIVE = (Use.PUBLISH, Use.EXAMPLE)


def _is_spf(record: Record) -> bool:
    return record.kind == "TXT" and record.data.startswith("v=spf1")


def _is_signed(site: Site, domain: str) -> bool:
    """Say whether a domain has a key, or the SRS domain or one above it, which then signs in its place."""
    return any(is_within(site.srs_domain, key.domain) or key.domain == domain for key in site.dkim if key.needed)


def _unsigned(owner: str) -> Finding:
    subject = Subject(owner, f"_domainkey.{owner}", "TXT")
    return subject.warning("", f"no key signs mail for {owner}: forwarder keys generate --domain {owner}")
