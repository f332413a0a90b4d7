"""`forwarder init`: a working configuration, rules and SRS secret for new domains, and the DNS records to publish.

Nothing that exists is overwritten: all names are looked at first, each file is then created exclusively, and what was
created is removed again when a later one fails. What it writes has been read back before it says so. Exit status 1
when a file is in the way or cannot be written, 2 when a name or address cannot be used.

Left out on purpose: DKIM keys, and publishing anything.
"""

import os
import secrets
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click

from forwarder.config import ConfigError, load, parse, tree_text
from forwarder.config.hosts import Domain, Mailbox
from forwarder.config.kinds import Unfit
from forwarder.model.address import Address, unicode_name
from forwarder.model.destination import Destination
from forwarder.rules import Forward, RulesError
from forwarder.rules import parse as parse_rules

_SYSTEM_DIR = Path("/etc/forwarder")
_SECRET_OCTETS = 32
_SECRETS_HEAD = "# Secrets of SRS, one a line: the first signs, all verify. To change it, put a new one on top.\n"


@dataclass(frozen=True, slots=True)
class _NewFile:
    path: Path
    text: str
    mode: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for, checked."""

    domains: tuple[str, ...]
    to: Address
    hostname: str
    srs_domain: str
    folder: Path
    state_dir: Path
    run_dir: Path

    @property
    def config(self) -> Path:
        return self.folder / "forwarder.toml"


@click.command
@click.option("--domain", "domains", multiple=True, required=True, metavar="D", help="A domain to forward; repeatable.")
@click.option("--to", required=True, metavar="ADDRESS", help="The inbox that all its mail goes to.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Put everything below this folder."
)
@click.option("--hostname", metavar="H", help="The name of this host, which its PTR must give.  [default: mx1.D]")
@click.option("--srs-domain", metavar="S", help="The domain of rewritten senders.  [default: fwd.D]")
def command(
    domains: tuple[str, ...], to: str, folder: Path | None, hostname: str | None, srs_domain: str | None
) -> None:
    """Write a working configuration, rules and secrets for a domain.

    Without --dir the files go to /etc/forwarder and what the gateway keeps to /var/lib/forwarder. Nothing that exists
    is overwritten.
    """
    served = tuple(dict.fromkeys(_domain(text, "--domain") for text in domains))
    base = _SYSTEM_DIR if folder is None else folder.absolute()
    plan = _Plan(
        served,
        _inbox(to),
        _domain(hostname or f"mx1.{served[0]}", "--hostname", host=True),
        _domain(srs_domain or f"fwd.{served[0]}", "--srs-domain"),
        base,
        Path("/var/lib/forwarder") if folder is None else base / "state",
        Path("/run/forwarder") if folder is None else base / "run",
    )
    _refuse_loop(plan)
    files = _files(plan)
    _check_rules(plan, files)
    _write(plan, files)
    click.echo(_next_steps(plan, files))


def _domain(text: str, option: str, *, host: bool = False) -> str:
    try:
        return Domain("mx1.example.org" if host else "example.org", host=host).read(text)
    except Unfit as unfit:
        raise click.BadParameter(f"{text!r}: {unfit}", param_hint=option) from None


def _inbox(text: str) -> Address:
    try:
        return Mailbox().read(text)
    except Unfit as unfit:
        raise click.BadParameter(f"{text!r}: {unfit}", param_hint="--to") from None


def _refuse_loop(plan: _Plan) -> None:
    if plan.to.domain in (*plan.domains, plan.hostname, plan.srs_domain):
        raise click.BadParameter(
            f"{plan.to}: expected an inbox elsewhere: mail for {plan.to.domain} comes to this gateway, "
            "so that it would go round in a loop",
            param_hint="--to",
        )


def _files(plan: _Plan) -> list[_NewFile]:
    secret = plan.folder / "srs.secrets"
    rules = plan.folder / "rules"
    tree = tree_text(
        {
            "hostname": plan.hostname,
            "postmaster": str(plan.to),
            "rules": str(rules),
            "state_dir": str(plan.state_dir),
            "run_dir": str(plan.run_dir),
            "srs": {"domain": plan.srs_domain, "secrets": str(secret)},
        }
    )
    head = "# All other keys have their defaults: `forwarder config show` prints what is in effect.\n\n"
    return [
        _NewFile(plan.config, head + tree, 0o644),
        *(_NewFile(rules / f"{domain}.rules", _rules(domain, plan.to), 0o644) for domain in plan.domains),
        _NewFile(secret, f"{_SECRETS_HEAD}{secrets.token_urlsafe(_SECRET_OCTETS)}\n", 0o600),
    ]


def _check_rules(plan: _Plan, files: list[_NewFile]) -> None:
    """Refuse an address that is something else in the rules, such as `*@gmail.com`, which keeps the local part."""
    try:
        rules = parse_rules([(str(file.path), file.text) for file in files if file.path.suffix == ".rules"], plan.to)
        decision = rules.resolve(Address("anybody", plan.domains[0]), None, date.min)
        reason = "it means something else there"
    except RulesError as error:
        decision, reason = None, error.problems[0].reason
    if not isinstance(decision, Forward) or decision.destinations != (Destination(plan.to),):
        raise click.BadParameter(f"{plan.to}: expected an address that rules can name: {reason}", param_hint="--to")


def _rules(domain: str, to: Address) -> str:
    head = f"# Mail for {unicode_name(domain)}. After a change: forwarder rules check, forwarder rules reload"
    return f"{head}\n\n[{domain}]\n* -> {to}\n"


def _write(plan: _Plan, files: list[_NewFile]) -> None:
    in_the_way = [str(file.path) for file in files if os.path.lexists(file.path)]
    if in_the_way:
        raise click.ClickException(f"nothing was written, as this exists already: {', '.join(in_the_way)}")
    made: list[Path] = []
    try:
        parse(files[0].text, str(plan.config))
        _create_folders(plan)
        for file in files:
            _create(file)
            made.append(file.path)
        load(plan.config)
    except (OSError, ConfigError) as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise click.ClickException(f"nothing was written: {error}") from None


def _create_folders(plan: _Plan) -> None:
    plan.folder.parent.mkdir(parents=True, exist_ok=True)
    _create_folder(plan.folder, 0o755)
    _create_folder(plan.folder / "rules", 0o755)
    if plan.state_dir.is_relative_to(plan.folder):  # the system's own are made by the service manager
        _create_folder(plan.state_dir, 0o700)
        _create_folder(plan.run_dir, 0o755)


def _create_folder(folder: Path, mode: int) -> None:
    """Create a folder that the service can use whatever the umask is; leave one that exists as it is."""
    if not folder.is_dir():
        folder.mkdir()
        folder.chmod(mode)


def _create(file: _NewFile) -> None:
    descriptor = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(file.text)
            os.fchmod(descriptor, file.mode)
    except OSError:
        file.path.unlink(missing_ok=True)
        raise


def _next_steps(plan: _Plan, files: list[_NewFile]) -> str:
    written = "\n".join(f"  {file.path}" for file in files)
    return f"""Written:
{written}

DNS records to publish, with the public addresses of this host for 192.0.2.1 and 2001:db8::1:
{_records(plan)}

Then:
  forwarder config check --config {plan.config}
  forwarder serve --config {plan.config}

srs.secrets must belong to the user who runs the gateway, or come as the systemd credential "srs.secrets"."""


def _records(plan: _Plan) -> str:
    mx = f"10 {plan.hostname}."
    records = [(f"{domain}.", "MX", mx) for domain in dict.fromkeys((*plan.domains, plan.srs_domain))]
    records += [
        (f"{plan.hostname}.", "A", "192.0.2.1"),
        (f"{plan.hostname}.", "AAAA", "2001:db8::1"),
        (f"{plan.hostname}.", "TXT", '"v=spf1 a -all"'),
    ]
    if plan.srs_domain != plan.hostname:
        records.append((f"{plan.srs_domain}.", "TXT", f'"v=spf1 a:{plan.hostname} -all"'))
    records += [(address, "PTR", f"{plan.hostname}.") for address in ("192.0.2.1", "2001:db8::1")]
    width = max(len(name) for name, _, _ in records)
    return "\n".join(f"  {name:<{width}}  {kind:<4}  {data}" for name, kind, data in records)
