"""`forwarder check FILE`: what the gateway would find out about a message on disk, and what it would do with it.

The checks are the gateway's own (`session.examination`), with real DNS. Name, checks and name servers come from the
configuration; where there is none, from the defaults and the machine. A file with LF line ends is read as SMTP would
carry it, with CRLF, and the report says so. What DMARC will say behind us is told as far as it can be without knowing
for whom the message is (`cli.foreseen`). Exit status 0 when DMARC passes or has nothing to say, else 1.

Left out on purpose: rules and recipients (`forwarder rules explain`), and handing anything on.
"""

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click
from click.core import ParameterSource

from forwarder.app.settings import session_settings
from forwarder.auth.dkim.keys import Refusal, look_up
from forwarder.auth.dkim.verify import DkimResult
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.forged import forged_fields
from forwarder.auth.results import Authentication, authentication_results
from forwarder.auth.spf.verify import SpfResult
from forwarder.cli import foreseen
from forwarder.cli.config import config_option, load_or_exit
from forwarder.model.address import Address, AddressError, canonical_name, parse_mailbox
from forwarder.model.headers import split_header
from forwarder.net.dns_exchange import NameServer, parse_nameserver
from forwarder.net.resolver import DnsResolver, system_nameservers
from forwarder.ops.clock import SystemClock
from forwarder.ops.log import escape
from forwarder.policy.content import ContentLimits, objection
from forwarder.policy.dmarc import Disposition, Verdict
from forwarder.policy.rewriting import Wishes
from forwarder.ports import Resolver
from forwarder.session.examination import Checks, Examination, Question
from forwarder.session.verdict import judge
from forwarder.smtp.paths import CommandError, parse_helo

T = TypeVar("T")

_BARE_LF = re.compile(rb"(?<!\r)\n")
_PIECE = 1 << 16
_DNS_TIMEOUT = 5.0  # seconds, as in a configuration that does not say
_LABEL = 10  # columns before the text of the report


@dataclass(frozen=True, slots=True)
class _Gateway:
    """The part of a gateway that this takes. `hostname` is its authserv-id."""

    hostname: str
    checks: Checks
    limits: ContentLimits
    wishes: Wishes
    nameservers: tuple[NameServer, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class _Report:
    """Everything that is told. `keys` has a text for each DKIM signature."""

    octets: int
    had_lf: bool
    question: Question
    found: Authentication
    keys: tuple[str, ...]
    verdict: Verdict
    forged: tuple[str, ...]
    field: str  # "" for a message that is refused
    outlook: foreseen.Outlook | None  # None for one that is refused

    @property
    def fine(self) -> bool:
        """Whether DMARC passes or has nothing to say."""
        dmarc = self.found.dmarc
        if dmarc is None:  # switched off, or the header could not be read
            return self.verdict.reply is None
        return dmarc.status in (DmarcStatus.PASS, DmarcStatus.NONE)


def _sender(text: str) -> Address | None:
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    return parse_mailbox(bare) if bare else None


def _helo(text: str) -> str:
    try:
        return parse_helo(text.encode(), extended=True)
    except CommandError as error:
        raise ValueError(error.reply.text) from None


def _client(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address") from None


def _option(name: str, read: Callable[[str], T], text: str) -> T:
    """Read what was given with an option; wrong use if it is nothing of the kind."""
    try:
        return read(text)
    except (AddressError, ValueError) as error:
        raise click.BadParameter(str(error), param_hint=f"'--{name}'") from None


@click.command
@click.argument("file", type=click.File("rb"), metavar="FILE")
@click.option("--ip", required=True, metavar="IP", help="The address of the client that sent the message.")
@click.option("--helo", required=True, metavar="NAME", help="The name that it gave with EHLO or HELO.")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help="The sender of MAIL FROM; '<>' for none.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--hostname", metavar="NAME", help="The gateway's name, in place of the configured one.")
@click.option("--nameserver", "servers", multiple=True, metavar="IP[:PORT]", help="Whom to ask, instead; repeatable.")
@config_option
def command(file: BinaryIO, path: Path, *, as_json: bool, **given: Any) -> None:
    """Check who sent the message in FILE ("-": standard input) by SPF, DKIM, ARC and DMARC.

    Exit status 0 when DMARC passes or has nothing to say, 1 otherwise.
    """
    gateway = _gateway(path, given["hostname"], given["servers"])
    question = Question(
        _option("ip", _client, given["ip"]),
        _option("helo", _helo, given["helo"]),
        _option("from", _sender, given["sender"]),
        gateway.hostname,
    )
    report = asyncio.run(_check(gateway, question, file.read()))
    click.echo(json.dumps(_as_tree(report), indent=2) if as_json else "\n".join(_as_text(report)))
    raise SystemExit(0 if report.fine else 1)


def _gateway(path: Path, hostname: str | None, servers: Sequence[str]) -> _Gateway:
    """Take what the configuration says; one that nobody named need not exist."""
    named = click.get_current_context().get_parameter_source("path") is ParameterSource.COMMANDLINE
    config = load_or_exit(path) if named or path.exists() else None
    name = _option("hostname", canonical_name, hostname) if hostname else None
    asked = tuple(_option("nameserver", parse_nameserver, each) for each in servers)
    if config is None:
        servers_here = asked or system_nameservers()
        return _Gateway(name or _own_name(), Checks(), ContentLimits(), Wishes(), servers_here, _DNS_TIMEOUT)
    configured = tuple(NameServer(one.host, one.port) for one in config.dns.nameservers)
    settings = session_settings(config)
    return _Gateway(
        name or settings.hostname,
        settings.checks,
        settings.content,
        settings.rewriting,
        asked or configured or system_nameservers(),
        config.dns.timeout,
    )


def _own_name() -> str:
    try:
        return canonical_name(socket.gethostname())
    except AddressError:
        return "localhost"


async def _check(gateway: _Gateway, question: Question, octets: bytes) -> _Report:
    clock = SystemClock()
    content, changed = _BARE_LF.subn(b"\r\n", octets)
    header = split_header(content[: gateway.limits.header_size + 1])
    resolver = DnsResolver(gateway.nameservers, clock, timeout=gateway.timeout)
    try:
        examination = Examination(gateway.checks, question, resolver, clock, gateway.limits.header_size)
        for start in range(0, len(content), _PIECE):
            examination.feed(content[start : start + _PIECE])
        found = await examination.finish()
        keys = tuple([await _key(resolver, each) for each in found.dkim])
    finally:
        await resolver.close()
    refusal = objection(content[: gateway.limits.header_size + 1], header, gateway.limits)
    verdict = Verdict(refusal, Disposition.NONE) if refusal else judge(gateway.checks, found)
    forged = tuple(forged_fields(header, gateway.hostname))
    results = authentication_results(gateway.hostname, found, verdict.disposition.value)
    findings = foreseen.Findings(header, found, examination.candidates, forged, results)
    return _Report(
        len(content),
        bool(changed),
        question,
        found,
        keys,
        verdict,
        tuple(content[start:end].decode("utf-8", "replace").rstrip() for start, end in forged),
        "" if verdict.reply else results.decode(),
        None if verdict.reply else foreseen.of_message(findings, gateway.hostname, gateway.wishes),
    )


async def _key(resolver: Resolver, signature: DkimResult) -> str:
    """Say which key a signature names; DNS has been asked, so the answer is at hand."""
    if not signature.domain:
        return ""
    name = f"{signature.selector}._domainkey.{signature.domain}"
    keys = await look_up(resolver, name, signature.algorithm)
    if isinstance(keys, Refusal):
        return name
    size = getattr(keys[0].key, "key_size", 0)
    return f"{name} ({keys[0].record.kind}{f', {size} bits' if size else ''})"


def _as_text(report: _Report) -> Iterator[str]:
    found = report.found
    yield from _lines("Message", _message_in_words(report))
    yield from _lines("Client", _client_in_words(report))
    yield from _lines("SPF", *_spf_in_words(found))
    yield from _lines("DKIM", *_dkim_in_words(found, report.keys))
    yield from _lines("ARC", *_arc_in_words(found))
    yield from _lines("DMARC", *(_dmarc_in_words(found.dmarc) if found.dmarc else ["not checked here"]))
    yield from _lines("Gateway", *_verdict_in_words(report.verdict))
    yield from _lines("Foresight", *(foreseen.message_in_words(report.outlook) if report.outlook else ()))
    yield from _lines("Removes", *(re.sub(r"\r\n[ \t]*", " ", each) for each in report.forged))
    yield from _lines("Writes", *report.field.splitlines())


def _lines(label: str, *texts: str) -> Iterator[str]:
    """Give the report's lines under one label. What strangers wrote cannot move the cursor."""
    for text in texts:
        yield f"{label:{_LABEL}}{escape(text.expandtabs(4))}"
        label = ""


def _message_in_words(report: _Report) -> str:
    ends = "; its LF line ends were read as CRLF" if report.had_lf else ""
    return f"{report.octets} octets{ends}"


def _client_in_words(report: _Report) -> str:
    question, named = report.question, report.found.iprev
    if named is None:
        name = ""
    elif named.name:
        name = f" ({named.name}, iprev pass)"
    else:
        name = f" (iprev {named.status.value}: {named.reason})"
    return f"{question.client}{name}, HELO {question.helo}, MAIL FROM <{question.sender or ''}>"


def _spf_in_words(found: Authentication) -> Iterator[str]:
    if found.spf is None:
        yield "not checked here"
        return
    if found.sender is not None:
        yield f"MAIL FROM {_one_spf(found.spf.mail_from)}"
    yield f"HELO {_one_spf(found.spf.helo)}"


def _one_spf(result: SpfResult) -> str:
    term = f' by "{result.mechanism}"' if result.mechanism else ""
    return f"{result.domain or '(no domain)'}: {_because(result.status, result.reason, term)}"


def _because(status: Enum, reason: str, more: str = "") -> str:
    return f"{status.value}{more}" + (f": {reason}" if reason else "")


def _dkim_in_words(found: Authentication, keys: Sequence[str]) -> Iterator[str]:
    if not found.dkim:
        yield "none: the message has no signature" if found.dkim_checked else "not checked here"
    for result, key in zip(found.dkim, keys, strict=True):
        named = f"d={result.domain} s={result.selector} a={result.algorithm} i={result.identity}: " if key else ""
        yield named + _because(result.status, result.reason)
        notes = (
            ("the end of the body is not signed", result.body_extended),
            ("the key is marked as a test", result.testing),
        )
        yield from (f"  {text}" for text, is_so in ((f"key {key}", bool(key)), *notes) if is_so)


def _arc_in_words(found: Authentication) -> Iterator[str]:
    arc = found.arc
    if arc is None:
        yield "not checked here"
        return
    yield _because(arc.status, arc.reason) + (f" ({_counted(arc.instances)})" if arc.instances else "")
    yield from (f"  set {instance} sealed by {domain}" for instance, domain in arc.sealers)


def _counted(sets: int) -> str:
    return "1 set" if sets == 1 else f"{sets} sets"


def _dmarc_in_words(result: DmarcResult) -> Iterator[str]:
    yield f"From {result.from_domain or '(no single domain)'}: {_because(result.status, result.reason)}"
    if result.published:
        yield f'  policy {result.policy.value}, from _dmarc.{result.policy_domain}: "{result.published}"'
    if result.organisation:
        listed = f"{result.psl_organisation} by the public suffix list"
        yield f"  organisation {result.organisation} by the tree walk, {listed}"
    if result.from_domain:
        aligned = [name for name, is_so in (("SPF", result.aligned_spf), ("DKIM", result.aligned_dkim)) if is_so]
        yield f"  aligned: {' and '.join(aligned) or 'nothing'}; under both: {'yes' if result.aligned_both else 'no'}"


def _verdict_in_words(verdict: Verdict) -> Iterator[str]:
    if verdict.reply is not None:
        text = verdict.reply.text.replace("\n", " / ")
        yield f"refuses it: {verdict.reply.code} {verdict.reply.enhanced} {text}"
        return
    yield "forwards it, marked as suspicious" if verdict.disposition is Disposition.QUARANTINE else "forwards it"
    if verdict.override:
        yield f"  although: {verdict.override}"


def _as_tree(report: _Report) -> dict[str, object]:
    found, verdict = report.found, report.verdict
    return {
        "octets": report.octets,
        "line_ends_read_as_crlf": report.had_lf,
        "client": report.question.client,
        "helo": report.question.helo,
        "from": str(report.question.sender or ""),
        "iprev": _plain(found.iprev),
        "spf": _plain(found.spf),
        "dkim": [{**_fields(each), "key": key} for each, key in zip(found.dkim, report.keys, strict=True)]
        if found.dkim_checked
        else None,
        "arc": _plain(found.arc),
        "dmarc": _plain(found.dmarc),
        "aligned_under_both": found.dmarc is not None and found.dmarc.aligned_both,
        "disposition": verdict.disposition.value,
        "override": verdict.override,
        "reply": str(verdict.reply) if verdict.reply else None,
        "foresight": foreseen.fields(report.outlook) if report.outlook else None,
        "removed": list(report.forged),
        "authentication_results": report.field,
    }


def _plain(value: Any) -> object:
    return None if value is None else _fields(value)


def _fields(value: Any) -> dict[str, object]:
    """Give a finding as JSON has it: enums by their values, octets as text."""
    return {name: _json(each) for name, each in asdict(value).items()}


def _json(value: object) -> object:
    if isinstance(value, dict):
        return {name: _json(each) for name, each in value.items()}
    if isinstance(value, Enum):
        return value.value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
