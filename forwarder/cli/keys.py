"""`forwarder keys generate`, `keys list` and `keys rotate`: the DKIM keys of the served domains.

`rotate` goes one step at a time and says each time what comes next: it makes a key whose record is to be published;
lets it sign once the record is live, and tells the running gateway; and when no mail signed with the old one can be
on its way any more, deletes that. The private half of a key never leaves its file. Exit status 1 when a step could
not be taken.

Left out on purpose: publishing records.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import click

from forwarder.cli.config import config_option, load_or_exit
from forwarder.cli.site import day, dkim_record, loaded_keys, names, refuse, resolver_of, served_domains
from forwarder.config import Config
from forwarder.model.address import AddressError, canonical_name
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import ControlError, call
from forwarder.ops.dnscheck import Finding, Status, check_key
from forwarder.ops.keys import KeysError, KeyState, StoredKey, stamp
from forwarder.ops.records import DkimRecord, quoted
from forwarder.ops.rotation import (
    ED25519,
    ON_THEIR_WAY,
    RSA,
    Action,
    NewKey,
    Step,
    free_selector,
    locked,
    make,
    remove,
    steps,
    switch,
)
from forwarder.rewrite.signing_key import SigningKey

_Command = TypeVar("_Command", bound=Callable[..., None])
_RSA_BITS = 2048

_domain_option = click.option("--domain", "domains", multiple=True, metavar="D", help="A domain; repeatable.")
_json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of one step. `reload`: the gateway has to read its keys again."""

    step: Step
    done: bool
    text: str
    record: DkimRecord | None = None
    until: datetime | None = None

    @property
    def reload(self) -> bool:
        return self.done and self.step.action is Action.SWITCH


@click.group
def command() -> None:
    """Make, list and rotate the DKIM keys."""


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except KeysError as error:
        refuse(error.problems)


@command.command
@_domain_option
@click.option("--type", "kind", type=click.Choice([RSA, ED25519]), default=RSA, show_default=True)
@click.option("--bits", type=click.IntRange(2048, 4096), default=_RSA_BITS, show_default=True, help="Of an RSA key.")
@click.option("--selector", metavar="S", help="The name of the key.  [default: s or e, and the day]")
@_json_option
@config_option
def generate(domains: Sequence[str], kind: str, bits: int, selector: str | None, as_json: bool, path: Path) -> None:
    """Make a key for each domain, and print the record to publish.

    Without --domain for every served domain that has no key of this type.
    """
    config, now = load_or_exit(path), SystemClock().now()
    named, given = _selector(selector), names(domains)
    with _refusing(), locked(config.dkim.keys):
        loaded = loaded_keys(config)
        wanted = given or tuple(each for each in served_domains(config) if not _of(loaded, each, kind))
        new = [NewKey(each, named or _free(config, each, kind, now), kind, bits) for each in wanted]
        _refuse_taken(config, new)
        made = [make(config.dkim.keys, each, _first_state(loaded, each), now) for each in new]
    if as_json:
        click.echo(json.dumps({"keys": [_key_fields(each, now) for each in made]}, indent=2))
        return
    for each in made:
        click.echo(_made_text(*each, path))
    if not made:
        click.echo(f"every served domain has a key of type {kind}: `forwarder keys rotate` makes the next")


def _selector(text: str | None) -> str:
    try:
        return canonical_name(text) if text is not None else ""
    except AddressError:
        raise click.BadParameter(f"{text!r} is no name that DNS can hold", param_hint="'--selector'") from None


def _of(loaded: Mapping[str, list[tuple[StoredKey, SigningKey]]], domain: str, kind: str) -> list[StoredKey]:
    return [stored for stored, key in loaded.get(domain, []) if key.kind == kind]


def _first_state(loaded: Mapping[str, list[tuple[StoredKey, SigningKey]]], new: NewKey) -> KeyState:
    """Let a key sign if there is no other: nothing was signed before, so its record may come later."""
    signs = any(stored.state is KeyState.SIGNING for stored in _of(loaded, new.domain, new.kind))
    return KeyState.PUBLISHED if signs else KeyState.SIGNING


def _free(config: Config, domain: str, kind: str, now: datetime) -> str:
    return free_selector(config.dkim.keys / domain, kind, now)


def _refuse_taken(config: Config, new: Sequence[NewKey]) -> None:
    """Refuse all before the first is written."""
    paths = [config.dkim.keys / each.domain / f"{each.selector}.pem" for each in new]
    if taken := [str(path) for path in paths if path.exists()]:
        raise KeysError(f"nothing was written, as this exists already: {', '.join(taken)}")


def _made_text(stored: StoredKey, key: SigningKey, path: Path) -> str:
    then = (
        f"it signs as soon as the gateway reloads (systemctl reload forwarder) or starts; before that, publish "
        f"the record and see whether it is there: forwarder dns check --domain {key.domain}"
        if stored.state is KeyState.SIGNING
        else f"it does not sign yet: when the record is live, forwarder keys rotate --domain {key.domain}"
    )
    return f"{stored.path}\n{_publish(dkim_record(stored, key))}\n{then}\n"


def _publish(record: DkimRecord) -> str:
    return f"publish this record:\n  {record.name}.  TXT  {quoted(record.text)}"


@command.command("list")
@_domain_option
@click.option("--check", "with_dns", is_flag=True, help="Look whether the records are in DNS.")
@_json_option
@config_option
def list_keys(domains: Sequence[str], with_dns: bool, as_json: bool, path: Path) -> None:
    """List the keys, with what each is for and what comes next."""
    config, now, chosen = load_or_exit(path), SystemClock().now(), names(domains)
    loaded = [each for domain, keys in loaded_keys(config).items() if not chosen or domain in chosen for each in keys]
    findings = asyncio.run(_checked(config, [dkim_record(*each) for each in loaded])) if with_dns else ()
    if as_json:
        told = [_key_fields(each, now) for each in loaded]
        for fields, finding in zip(told, findings, strict=False):
            fields["dns"] = {"status": finding.status.value, "there": finding.there, "fix": finding.fix}
        click.echo(json.dumps({"keys": told}, indent=2))
    else:
        _print_list(loaded, findings, now)
    raise SystemExit(1 if any(finding.must_be_fixed for finding in findings) else 0)


async def _checked(config: Config, records: Sequence[DkimRecord]) -> tuple[Finding, ...]:
    async with resolver_of(config) as resolver:
        return tuple(await asyncio.gather(*(check_key(resolver, record) for record in records)))


def _key_fields(key: tuple[StoredKey, SigningKey], now: datetime) -> dict[str, object]:
    stored, loaded = key
    record = dkim_record(stored, loaded)
    return {
        "domain": stored.domain,
        "selector": stored.selector,
        "type": loaded.kind,
        "bits": getattr(loaded.private, "key_size", None),
        "state": stored.state.value,
        "created": stamp(stored.entry.created),
        "since": stamp(stored.entry.since),
        "until": stamp(stored.entry.until) if stored.entry.until else None,
        "next": _next(stored, now),
        "file": str(stored.path),
        "record": {"name": f"{record.name}.", "type": "TXT", "text": record.text},
    }


def _print_list(loaded: Sequence[tuple[StoredKey, SigningKey]], findings: Sequence[Finding], now: datetime) -> None:
    if not loaded:
        click.echo("no keys: make some with `forwarder keys generate`")
    domain = ""
    for number, (stored, key) in enumerate(loaded):
        if stored.domain != domain:
            domain = stored.domain
            click.secho(domain, bold=True)
        size = getattr(key.private, "key_size", "")
        what = f"{key.kind}{f' {size}' if size else ''}"
        click.echo(f"  {stored.selector:<12}  {what:<8}  {stored.state.value:<9}  since {day(stored.entry.since)}")
        click.echo(f"    next: {_next(stored, now)}")
        if findings:
            finding = findings[number]
            colour = "green" if finding.status is Status.OK else "red" if finding.must_be_fixed else "yellow"
            fix = f": {finding.fix}" if finding.fix else ""
            click.echo(f"    DNS:  {click.style(finding.status.value, fg=colour)}{fix}")


def _next(stored: StoredKey, now: datetime) -> str:
    rotate = f"forwarder keys rotate --domain {stored.domain}"
    if stored.state is KeyState.PUBLISHED:
        return f"publish its record; when that is live, `{rotate}` lets it sign"
    if stored.state is KeyState.SIGNING:
        return f"keep its record; once a year or so, `{rotate}` begins with a new key"
    if stored.entry.until and stored.entry.until > now:
        return f"keep its record until {day(stored.entry.until)}; after that `{rotate}` removes the key"
    return f"delete its record; `{rotate}` removes the key"


@command.command
@_domain_option
@click.option("--yes", is_flag=True, help="Do not ask first.")
@click.option("--force", is_flag=True, help="Switch to a key although DNS does not have its record.")
@_json_option
@config_option
def rotate(domains: Sequence[str], yes: bool, force: bool, as_json: bool, path: Path) -> None:
    """Take the next step of changing keys: publish, sign, retire, remove.

    Without --domain for every domain that has keys.
    """
    if as_json and not yes:
        raise click.UsageError("--json does not ask: it needs --yes")
    config, now, chosen = load_or_exit(path), SystemClock().now(), names(domains)
    with _refusing(), locked(config.dkim.keys, create=False):
        loaded = _chosen(loaded_keys(config), chosen)
        planned = [step for keys in loaded.values() for step in steps(keys, now)]
        if not yes and any(step.action is not Action.WAIT for step in planned):
            for step in planned:
                click.echo(_planned(step))
            click.confirm("Do this?", abort=True)
        told = [_take(config, step, now, loaded[step.domain], force=force) for step in planned]
    reloaded, news = _reload(config) if any(each.reload for each in told) else (True, "")
    if as_json:
        click.echo(json.dumps({"steps": [_told_fields(each) for each in told], "gateway": news or None}, indent=2))
    else:
        for each in told:
            click.echo(each.text)
        if news:
            click.echo(news)
    raise SystemExit(0 if reloaded and all(each.done for each in told) else 1)


_Loaded = Mapping[str, list[tuple[StoredKey, SigningKey]]]


def _chosen(loaded: _Loaded, domains: Sequence[str]) -> _Loaded:
    missing = [domain for domain in domains if domain not in loaded]
    if missing or not loaded:
        who = ", ".join(missing) or "any domain"
        raise KeysError(
            f"there is no key of {who}: forwarder keys generate" + "".join(f" --domain {d}" for d in missing)
        )
    return {domain: keys for domain, keys in loaded.items() if not domains or domain in domains}


def _planned(step: Step) -> str:
    what = {
        Action.MAKE: f"make a new {step.kind} key, which does not sign yet",
        Action.SWITCH: f"let {step.selector} sign if its record is in DNS, and retire {_listed(step.replaces)}",
        Action.WAIT: f"wait until {day(step.until)}",
        Action.REMOVE: f"delete the retired key {step.selector}",
    }
    return f"{step.domain}: {what[step.action]}"


def _listed(selectors: Sequence[str]) -> str:
    return ", ".join(selectors) or "none"


def _take(
    config: Config, step: Step, now: datetime, keys: Sequence[tuple[StoredKey, SigningKey]], *, force: bool
) -> _Told:
    try:
        match step.action:
            case Action.MAKE:
                return _make(config, step, now)
            case Action.SWITCH:
                key = next(each for each in keys if each[0].selector == step.selector)
                return _switch(config, step, now, dkim_record(*key), force=force)
            case Action.WAIT:
                return _wait(step)
            case Action.REMOVE:
                remove(config.dkim.keys / step.domain, step)
                name = f"{step.selector}._domainkey.{step.domain}."
                return _Told(
                    step, True, f"{step.domain}: {step.selector} is deleted; now delete its record: {name} TXT"
                )
    except KeysError as error:
        return _Told(step, False, str(error))


def _wait(step: Step) -> _Told:
    text = (
        f"{step.domain}: nothing to do until {day(step.until)}: until then mail signed with {step.selector} may be on "
        f"its way, and {step.selector}._domainkey.{step.domain}. must stay; then: {_again(step)}"
    )
    return _Told(step, True, text, until=step.until)


def _again(step: Step) -> str:
    return f"forwarder keys rotate --domain {step.domain}"


def _make(config: Config, step: Step, now: datetime) -> _Told:
    selector = _free(config, step.domain, step.kind, now)
    new = NewKey(step.domain, selector, step.kind, step.bits or _RSA_BITS)
    record = dkim_record(*make(config.dkim.keys, new, KeyState.PUBLISHED, now))
    text = (
        f"{step.domain}: {selector} is made and does not sign yet; {_publish(record)}\nwhen it is live: {_again(step)}"
    )
    return _Told(step, True, text, record)


def _switch(config: Config, step: Step, now: datetime, record: DkimRecord, *, force: bool) -> _Told:
    (finding,) = asyncio.run(_checked(config, [record]))
    if finding.status not in (Status.OK, Status.WARNING) and not force:
        return _Told(step, False, _not_live(step, finding), record)
    keep = timedelta(seconds=config.delivery.expire) + ON_THEIR_WAY
    until = switch(config.dkim.keys / step.domain, step, now, keep)
    old = [f"{selector}._domainkey.{step.domain}." for selector in step.replaces]
    text = f"{step.domain}: {step.selector} signs"
    if old:
        text += (
            f" in place of {_listed(step.replaces)}; keep {', '.join(old)} until {day(until)}, for mail that is on its "
            f"way, then: {_again(step)}"
        )
    return _Told(step, True, text, record, until if old else None)


def _not_live(step: Step, finding: Finding) -> str:
    lines = [f"{step.domain}: {step.selector} does not sign yet: its record: {finding.status.value}"]
    if finding.there:
        lines.append(f"  there:     {finding.there}")
    lines += [f"  should be: {finding.name}. TXT {finding.expected}", f"  fix:       {finding.fix}"]
    return "\n".join([*lines, "resolvers may remember an older answer for its TTL; --force switches nevertheless"])


def _reload(config: Config) -> tuple[bool, str]:
    """Let the gateway read its keys again; say whether that went well, and what there is to know."""
    try:
        answer = call(config.run_dir / "control.sock", "keys.reload")
    except ControlError as error:
        return True, f"the gateway was not told, and takes the change up at its next reload or start: {error}"
    if answer.get("ok"):
        return True, "the gateway has read its keys again"
    problems = answer.get("problems")
    listed = [str(problem) for problem in problems] if isinstance(problems, list) else []
    return False, "\n".join(["the gateway goes on with the keys that it had:", *listed])


def _told_fields(told: _Told) -> dict[str, object]:
    step, record = told.step, told.record
    return {
        "domain": step.domain,
        "type": step.kind,
        "action": step.action.value,
        "selector": step.selector or (record.name.partition("._domainkey.")[0] if record else ""),
        "replaces": list(step.replaces),
        "done": told.done,
        "until": stamp(told.until) if told.until else None,
        "record": {"name": f"{record.name}.", "type": "TXT", "text": record.text} if record else None,
        "text": told.text,
    }
