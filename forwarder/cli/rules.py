"""`forwarder rules check|show|explain|test`: the rules language at the command line.

All work on the rules that the configuration names, or with `--rules` on a file or folder, without any configuration.
Problems are lines `file:line:column: reason` on stdout; exit status 1 when there is one. `rules reload` is a module of
its own (`cli.reload`): it talks to the running gateway. With a configuration `explain --from` also asks DNS what the
sender's domain wants by DMARC, and says what that means at the destination.
"""

import importlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import click

from forwarder.cli.config import config_option, load_or_exit
from forwarder.config import Config
from forwarder.model.address import Address, AddressError, parse_mailbox, unicode_name
from forwarder.ops.clock import SystemClock
from forwarder.ops.log import escape
from forwarder.ops.rulefiles import RuleFilesError, read_rules
from forwarder.ops.secrets import SecretError, srs_secrets
from forwarder.rewrite.srs import Srs, SrsError
from forwarder.rules import Discard, Forward, NotServed, RulesError, RuleSet, parse
from forwarder.rules.cases import STRANGER, destination_in_words, in_words, parse_cases, run_cases, sender_of
from forwarder.rules.explain import Considered, Explanation, Step, Verdict
from forwarder.rules.explain import explain as explain_rules
from forwarder.rules.rule import Rule

_DAY = 86_400  # seconds
_PLACEHOLDER = Address("postmaster", "postmaster.invalid")  # RFC 2606 2

_Command = TypeVar("_Command", bound=Callable[..., None])


class _WithReload(click.Group):
    """The group, and `reload` of a module that is loaded when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "reload"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "reload":
            return super().get_command(ctx, cmd_name)
        found: click.Command = importlib.import_module("forwarder.cli.reload").reload
        return found


@dataclass(frozen=True, slots=True)
class _Source:
    """Which rules a command works on; `config` is None when `--rules` names them."""

    rules: Path
    postmaster: Address
    config: Config | None


def _source_options(function: _Command) -> _Command:
    for option in (
        click.option("--postmaster", metavar="A", help="Who gets postmaster@ and abuse@, with --rules."),
        click.option(
            "--rules", "rules_path", type=click.Path(path_type=Path), metavar="PATH", help="Not the configured rules."
        ),
        config_option,
    ):
        function = option(function)
    return function


def _source(path: Path, rules_path: Path | None, postmaster: str | None) -> _Source:
    try:
        given = parse_mailbox(postmaster) if postmaster is not None else None
    except AddressError as error:
        raise click.UsageError(f"--postmaster: {error}") from None
    if rules_path is not None:
        return _Source(rules_path, given or _PLACEHOLDER, None)
    config = load_or_exit(path)
    return _Source(config.rules, given or config.postmaster, config)


def _load(source: _Source) -> RuleSet:
    """Read and parse; with problems print them and exit with status 1."""
    try:
        return parse(read_rules(source.rules), source.postmaster)
    except (RuleFilesError, RulesError) as error:
        for problem in error.problems:
            click.echo(str(problem))
        raise SystemExit(1) from None


def _today() -> date:
    return SystemClock().now().date()


@click.group(cls=_WithReload)
def command() -> None:
    """Check, show, explain, test or reload the rules."""


@command.command
@click.argument("rules_file", type=click.Path(path_type=Path), required=False, metavar="[PATH]")
@_source_options
def check(rules_file: Path | None, path: Path, rules_path: Path | None, postmaster: str | None) -> None:
    """Check the rules in PATH, a file or a folder, or those that the configuration names."""
    if rules_file is not None and rules_path is not None:
        raise click.UsageError("PATH and --rules name the same thing: give one")
    source = _source(path, rules_file or rules_path, postmaster)
    rules = _load(source)
    served = len(rules.domains)
    click.echo(f"{source.rules}: fine: {_counted(rules.total, 'rule')} for {_counted(served, 'domain')}")


@command.command
@_source_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(path: Path, rules_path: Path | None, postmaster: str | None, as_json: bool) -> None:
    """List the rules in force, domain by domain."""
    rules = _load(_source(path, rules_path, postmaster))
    if as_json:
        listed = {domain: [_rule_fields(rule) for rule in _in_order(rules, domain)] for domain in sorted(rules.domains)}
        click.echo(json.dumps({"postmaster": str(rules.postmaster), "domains": listed}, indent=2))
        return
    for domain in sorted(rules.domains):
        click.echo(f"[{_readable(domain)}]")
        for rule in _in_order(rules, domain):
            click.echo(f"  {rule.pattern:<24} {rule.place}: {rule.text}")


@command.command
@click.argument("address")
@click.option("--from", "sender", metavar="S", help="The envelope sender; <> is the null sender.")
@click.option("--on", "day", type=click.DateTime(["%Y-%m-%d"]), help="The day (UTC) in place of today.")
@_source_options
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def explain(  # one parameter for each option
    address: str,
    sender: str | None,
    day: "date | None",
    path: Path,
    rules_path: Path | None,
    postmaster: str | None,
    as_json: bool,
) -> None:
    """Say where mail for ADDRESS goes, by which rule, and why by no other."""
    try:
        recipient = parse_mailbox(address) if address.lower() != "postmaster" else Address(address, "")
        asked = sender_of(sender) if sender is not None else STRANGER
    except AddressError as error:
        raise click.UsageError(f"{address if sender is None else sender}: {error}") from None
    source = _source(path, rules_path, postmaster)
    today = date(day.year, day.month, day.day) if day is not None else _today()
    explanation = explain_rules(_load(source), recipient, asked, today)
    srs = _srs_sender(source.config, asked) if sender is not None else None
    author = asked if sender is not None else None
    foreseen, foresight = _foreseen(source.config, author, recipient, explanation.decision)
    if as_json:
        click.echo(json.dumps(_explanation_fields(explanation, srs, foresight), indent=2))
    else:
        _print_explanation(explanation, srs)
        for line in foreseen:
            click.echo(escape(line))
    if isinstance(explanation.decision, NotServed):
        raise SystemExit(1)


@command.command("test")
@click.argument("cases", nargs=-1, required=True, type=click.Path(path_type=Path))
@_source_options
def run_tests(cases: tuple[Path, ...], path: Path, rules_path: Path | None, postmaster: str | None) -> None:
    """Check that the rules do what the files CASES expect of them.

    One case a line: `address [from sender] [on YYYY-MM-DD] => expected`, where expected is destinations separated by
    commas, `reject 550 5.1.1`, `defer 450`, `discard` or `not served`.
    """
    rules = _load(_source(path, rules_path, postmaster))
    passed = failed = 0
    for file in cases:
        try:
            those = parse_cases(str(file), file.read_bytes().decode())
        except RulesError as error:
            click.echo(str(error))
            failed += len(error.problems)
            continue
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            click.echo(f"{file}: {reason}")
            failed += 1
            continue
        failures = run_cases(rules, those, _today())
        for failure in failures:
            click.echo(f"{failure.case.place}: {failure.case.text}: got {failure.got}")
        passed += len(those) - len(failures)
        failed += len(failures)
    click.echo(f"{passed} passed, {failed} failed")
    if failed or not passed:
        raise SystemExit(1)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _readable(domain: str) -> str:
    name = unicode_name(domain)
    return domain if name == domain else f"{name}, that is {domain}"


def _in_order(rules: RuleSet, domain: str) -> list[Rule]:
    return sorted(rules.tables[domain].rules(), key=lambda rule: (rule.place.file, rule.place.line, rule.place.column))


def _rule_fields(rule: Rule) -> dict[str, object]:
    return {
        "kind": rule.kind.value,
        "pattern": rule.pattern,
        "from": str(rule.senders) if rule.senders is not None else None,
        "until": rule.until.isoformat() if rule.until is not None else None,
        "limit": {"count": rule.rate.count, "seconds": rule.rate.seconds} if rule.rate is not None else None,
        "place": str(rule.place),
        "text": rule.text,
    }


def _srs_sender(config: Config | None, sender: Address | None) -> str | None:
    """Give the envelope sender that takes the place of `sender`, or why there is none; None without configuration."""
    if config is None:
        return None
    if sender is None:
        return "<> (the null sender stays)"
    day = int(SystemClock().now().timestamp()) // _DAY
    try:
        srs = Srs(config.srs.domain, srs_secrets(config.srs.secrets), math.ceil(config.srs.max_age / _DAY))
        return str(srs.encode(sender, day))
    except (SecretError, SrsError) as error:
        return f"cannot be told: {error}"


def _foreseen(
    config: Config | None, sender: Address | None, alias: Address, decision: object
) -> tuple[Sequence[str], Mapping[str, object] | None]:
    """Tell what DMARC will say of the sender's mail at its destination, in words and as JSON has it."""
    if config is None or sender is None or not isinstance(decision, Forward):
        return (), None
    from forwarder.cli.foreseen import told_of_sender  # a second of processor time that nothing else here needs

    return told_of_sender(config, sender, alias)


def _print_explanation(explanation: Explanation, srs: str | None) -> None:
    if not explanation.steps and isinstance(explanation.decision, NotServed):
        click.echo("not served: no section names this domain")
        return
    for step in explanation.steps:
        click.echo(f"{'  ' * step.depth}{step.address}")
        for considered in step.considered:
            if considered.verdict is not Verdict.LATER:
                click.echo(f"{'  ' * step.depth}  {_considered_line(considered)}")
    decision = explanation.decision
    if not isinstance(decision, Forward):
        click.echo(f"so: {in_words(decision)}")
        return
    for destination in decision.destinations:
        click.echo(f"so: forward to {destination_in_words(destination)}")
    for limit in decision.limits:
        click.echo(f"at most {limit.count} messages in {limit.seconds} s ({limit.place}); over it: 450")
    if srs is not None:
        click.echo(f"sender: {srs}")


def _considered_line(considered: Considered) -> str:
    rule = considered.rule
    if rule is None:
        return f"{considered.what}: {considered.verdict.value}"
    until = f" (until {rule.until})" if rule.until is not None else ""
    return f"{considered.what}: {considered.verdict.value}{until}: {rule.place}: {rule.text}"


def _explanation_fields(
    explanation: Explanation, srs: str | None, foresight: Mapping[str, object] | None
) -> dict[str, object]:
    decision = explanation.decision
    fields: dict[str, object] = {
        "decision": type(decision).__name__.lower() if not isinstance(decision, NotServed) else "not served",
        "steps": [_step_fields(step) for step in explanation.steps],
    }
    match decision:
        case Forward():
            fields["destinations"] = [
                {"address": str(d.address), "via": str(d.via) if d.via is not None else None}
                for d in decision.destinations
            ]
            fields["limits"] = [
                {"count": limit.count, "seconds": limit.seconds, "place": str(limit.place)} for limit in decision.limits
            ]
            fields["srs_sender"] = srs
            fields["foresight"] = foresight
        case NotServed() | Discard():
            pass
        case _:
            fields["reply"] = str(decision.reply)
    return fields


def _step_fields(step: Step) -> dict[str, object]:
    considered = [
        {
            "level": c.level.value,
            "sought": c.what,
            "verdict": c.verdict.value,
            "rule": _rule_fields(c.rule) if c.rule is not None else None,
        }
        for c in step.considered
    ]
    return {"depth": step.depth, "address": str(step.address), "considered": considered}
