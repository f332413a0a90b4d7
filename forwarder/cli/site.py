"""What commands about keys and DNS need to know of an installation: its domains, keys, addresses and name servers.

What cannot be read is told on stderr, with exit status 1.
"""

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from ipaddress import ip_address
from typing import NoReturn

import click

from forwarder.config import Config
from forwarder.model.address import AddressError, canonical_name
from forwarder.net.dns_exchange import NameServer
from forwarder.net.resolver import DnsResolver, system_nameservers
from forwarder.ops.addresses import own_addresses
from forwarder.ops.clock import SystemClock
from forwarder.ops.keys import KeysError, KeyState, StoredKey, read_folder
from forwarder.ops.records import DkimRecord, Site
from forwarder.ops.rulefiles import RuleFilesError, read_rules
from forwarder.rewrite.signing_key import SigningKey, public_record
from forwarder.rules import RulesError, parse

_WILD_CARDS = (("0.0.0.0", 0), ("::", 0))  # noqa: S104 - stand for every address of this machine


def refuse(problems: Iterable[str]) -> NoReturn:
    """Tell the problems and exit with status 1."""
    for problem in problems:
        click.echo(problem, err=True)
    raise SystemExit(1)


def served_domains(config: Config) -> tuple[str, ...]:
    """Give the domains that the rules are for, in alphabetical order."""
    try:
        return tuple(sorted(parse(read_rules(config.rules), config.postmaster).domains))
    except (RuleFilesError, RulesError) as error:
        refuse(map(str, error.problems))


def names(texts: Iterable[str]) -> tuple[str, ...]:
    """Read domains that were given with --domain; wrong use if one is none."""
    try:
        return tuple(dict.fromkeys(canonical_name(text) for text in texts))
    except AddressError as error:
        raise click.BadParameter(str(error), param_hint="'--domain'") from None


def loaded_keys(config: Config) -> dict[str, list[tuple[StoredKey, SigningKey]]]:
    """Give all keys of the key folder, by domain, oldest first."""
    contents = read_folder(config.dkim.keys)
    problems = list(contents.problems)
    loaded: dict[str, list[tuple[StoredKey, SigningKey]]] = {}
    for domain, keys in contents.keys.items():
        for stored in keys:
            try:
                loaded.setdefault(domain, []).append((stored, stored.load()))
            except KeysError as error:
                problems += error.problems
    if problems:
        refuse(problems)
    for warning in contents.warnings:
        click.echo(warning, err=True)
    return loaded


def dkim_record(stored: StoredKey, key: SigningKey) -> DkimRecord:
    """Give what DNS has to say of a key."""
    retired = stored.state is KeyState.RETIRED
    note = ""
    if stored.state is KeyState.PUBLISHED:
        note = f"the next key of {key.domain}; `forwarder keys rotate` lets it sign once this is published"
    elif retired:
        note = f"a key of {key.domain} that signs no more; keep this until {day(stored.entry.until)}, then delete it"
    return DkimRecord(key.domain, key.name, public_record(key), note, not retired)


def day(time: datetime | None) -> str:
    """Write the day of a time."""
    return f"{time:%Y-%m-%d}" if time else "today"


def site_of(config: Config, addresses: Collection[str]) -> Site:
    """Give the gateway as DNS should show it."""
    keys = [dkim_record(*each) for loaded in loaded_keys(config).values() for each in loaded]
    return Site(config.hostname, config.srs.domain, served_domains(config), tuple(addresses), tuple(keys))


def machine_addresses(config: Config) -> tuple[str, ...]:
    """Give the public addresses of this machine, IPv4 first; () behind NAT."""
    listed = config.delivery.source_addresses or sorted(address for address, _ in own_addresses(_WILD_CARDS))
    return tuple(sorted((each for each in listed if ip_address(each).is_global), key=lambda each: ":" in each))


@asynccontextmanager
async def resolver_of(config: Config) -> AsyncIterator[DnsResolver]:
    """Ask the configured name servers, else those of the system."""
    configured = tuple(NameServer(one.host, one.port) for one in config.dns.nameservers)
    resolver = DnsResolver(configured or system_nameservers(), SystemClock(), timeout=config.dns.timeout)
    try:
        yield resolver
    finally:
        await resolver.close()
