"""`forwarder dns records` and `dns check`: the DNS records that the gateway needs, and whether they are live.

`records` writes them as a zone file or as JSON. The host's addresses are those given, else those that DNS has for it,
else the public ones of this machine; where there are none, examples take their place, as comments. `check` asks DNS
and prints a line for each record, and what is there, what should be and what to do where these differ. Exit status 1
when something must be put right; warnings, and what DNS did not answer, leave it 0.

Left out on purpose: publishing anything.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import click

from forwarder.cli.config import config_option, load_or_exit
from forwarder.cli.site import machine_addresses, names, resolver_of, site_of
from forwarder.config import Config
from forwarder.ops.dnscheck import Finding, Status
from forwarder.ops.dnscheck import check as check_site
from forwarder.ops.log import escape
from forwarder.ops.records import Record, Site, Zone, records, zone_file, zones

_Command = TypeVar("_Command", bound=Callable[..., None])

_COLOURS = {
    Status.OK: "green",
    Status.MISSING: "red",
    Status.DIFFERENT: "red",
    Status.WARNING: "yellow",
    Status.UNANSWERED: "magenta",
}
_WORDS = {Status.UNANSWERED: "unknown"}
_WIDTH = max(len(_WORDS.get(status, status.value)) for status in Status)


def _options(function: _Command) -> _Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="As JSON."),
        click.option("--ipv6", multiple=True, metavar="IP", help="A public IPv6 address of the host; repeatable."),
        click.option("--ipv4", multiple=True, metavar="IP", help="A public IPv4 address of the host; repeatable."),
        click.option(
            "--domain", "domains", multiple=True, metavar="D", help="Only what is for this domain; repeatable."
        ),
        config_option,
    ):
        function = option(function)
    return function


@click.group
def command() -> None:
    """Print the DNS records to publish, or compare them with live DNS."""


@command.command("records")
@_options
def print_records(path: Path, domains: Sequence[str], ipv4: Sequence[str], ipv6: Sequence[str], as_json: bool) -> None:
    """Print the DNS records to publish, as a zone file with the reasons."""
    config = load_or_exit(path)
    site = site_of(config, given_addresses(ipv4, ipv6) or _found_addresses(config))
    only = _chosen(site, domains)
    found = zones(record for record in records(site) if not only or record.owner in only)
    if as_json:
        click.echo(json.dumps({"zones": [_zone_fields(zone) for zone in found]}, indent=2))
    else:
        click.echo(zone_file(found), nl=False)


@command.command
@_options
def check(path: Path, domains: Sequence[str], ipv4: Sequence[str], ipv6: Sequence[str], as_json: bool) -> None:
    """Compare live DNS with the records that the gateway needs.

    Exit status 1 when something must be put right.
    """
    config = load_or_exit(path)
    site = site_of(config, given_addresses(ipv4, ipv6))
    only = _chosen(site, domains)
    findings = asyncio.run(_check(config, site, only))
    wrong = any(finding.must_be_fixed for finding in findings)
    if as_json:
        tree = {"fine": not wrong, "findings": [_finding_fields(finding) for finding in findings]}
        click.echo(json.dumps(tree, indent=2))
    else:
        for line in _as_text(findings):
            click.echo(line)
    raise SystemExit(1 if wrong else 0)


def given_addresses(ipv4: Sequence[str], ipv6: Sequence[str]) -> tuple[str, ...]:
    """Read the addresses of --ipv4 and --ipv6; wrong use if one is none of that family."""
    found = []
    for texts, version in ((ipv4, 4), (ipv6, 6)):
        for text in texts:
            try:
                address = ip_address(text)
            except ValueError:
                address = None
            if address is None or address.version != version or "%" in text:
                raise click.BadParameter(f"{text!r} is no IPv{version} address", param_hint=f"'--ipv{version}'")
            found.append(str(address))
    return tuple(dict.fromkeys(found))


def _chosen(site: Site, domains: Sequence[str]) -> tuple[str, ...]:
    chosen, known = names(domains), {*site.owners, *(key.domain for key in site.dkim)}
    for domain in chosen:
        if domain not in known:
            raise click.BadParameter(
                f"{domain} is no served domain, nor the SRS domain or the host: {', '.join(sorted(known))}",
                param_hint="'--domain'",
            )
    return chosen


def _found_addresses(config: Config) -> tuple[str, ...]:
    return asyncio.run(_published_addresses(config)) or machine_addresses(config)


async def _published_addresses(config: Config) -> tuple[str, ...]:
    async with resolver_of(config) as resolver:
        answers = [await resolver.addresses(config.hostname, ipv6=ipv6) for ipv6 in (False, True)]
    return tuple(address for answer in answers for address in sorted(answer.records))


async def _check(config: Config, site: Site, only: Sequence[str]) -> tuple[Finding, ...]:
    async with resolver_of(config) as resolver:
        return await check_site(resolver, site, machine_addresses(config), only or None)


def _zone_fields(zone: Zone) -> dict[str, object]:
    return {"zone": zone.name, "records": [_record_fields(record) for record in zone.records]}


def _record_fields(record: Record) -> dict[str, object]:
    text = {"text": record.data} if record.kind == "TXT" else {}
    return {
        "name": f"{record.name}.",
        "type": record.kind,
        "data": record.presented,
        **text,
        "for": record.owner,
        "use": record.use.value,
        "why": record.why,
    }


def _finding_fields(finding: Finding) -> dict[str, object]:
    return {
        "status": finding.status.value,
        "for": finding.owner,
        "name": f"{finding.name}.",
        "type": finding.kind,
        "there": finding.there,
        "expected": finding.expected,
        "fix": finding.fix,
    }


def _as_text(findings: Sequence[Finding]) -> Iterator[str]:
    owner = ""
    for finding in findings:
        if finding.owner != owner:
            owner = finding.owner
            yield click.style(owner, bold=True)
        yield from _lines(finding)
    counts = Counter(finding.status for finding in findings)
    yield ", ".join(f"{counts[status]} {status.value}" for status in Status if counts[status]) or "nothing to check"


def _lines(finding: Finding) -> Iterator[str]:
    word = click.style(f"{_WORDS.get(finding.status, finding.status.value):{_WIDTH}}", fg=_COLOURS[finding.status])
    what = f"  {word}  {finding.name}. {finding.kind}"
    if finding.status is Status.OK:
        yield f"{what} {escape(finding.there)}"
        return
    yield what
    for label, text in (("there", finding.there or "nothing"), ("should be", finding.expected), ("fix", finding.fix)):
        if text and not (label == "there" and finding.status is Status.UNANSWERED):
            yield f"    {label + ':':<11}{escape(text)}"
