"""`forwarder init`: a working configuration, rules, SRS secret and DKIM keys for new domains, and the DNS records.

Nothing that exists is overwritten: all names are looked at first, each file is then created exclusively, and what was
created is removed again when a later one fails. What it writes has been read back before it says so. A domain that has
DKIM keys in the state folder already keeps them. Exit status 1 when a file is in the way or cannot be written, 2 when a
name or address cannot be used.

Left out on purpose: publishing anything, and asking DNS, which knows nothing of a new host.
"""

import os
import secrets
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import click

from forwarder.cli.dns import given_addresses
from forwarder.cli.site import machine_addresses, site_of
from forwarder.config import ConfigError, load, parse, tree_text
from forwarder.config.hosts import Domain, Mailbox
from forwarder.config.kinds import Unfit
from forwarder.model.address import Address, unicode_name
from forwarder.model.destination import Destination
from forwarder.ops.clock import SystemClock
from forwarder.ops.keys import ROTATION, KeysError, KeyState, read_folder
from forwarder.ops.records import records, zone_file, zones
from forwarder.ops.rotation import RSA, NewKey, free_selector, locked, make
from forwarder.rules import Forward, RulesError
from forwarder.rules import parse as parse_rules

_SYSTEM_DIR = Path("/etc/forwarder")
_SYSTEM_STATE = Path("/var/lib/forwarder")
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
    addresses: tuple[str, ...]

    @property
    def config(self) -> Path:
        return self.folder / "forwarder.toml"

    @property
    def keys(self) -> Path:
        return self.state_dir / "keys"


@click.command
@click.option("--domain", "domains", multiple=True, required=True, metavar="D", help="A domain to forward; repeatable.")
@click.option("--to", required=True, metavar="ADDRESS", help="The inbox that all its mail goes to.")
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Put everything below this folder."
)
@click.option("--hostname", metavar="H", help="The name of this host, which its PTR must give.  [default: mx1.D]")
@click.option("--srs-domain", metavar="S", help="The domain of rewritten senders.  [default: fwd.D]")
@click.option("--ipv4", multiple=True, metavar="IP", help="A public IPv4 address of this host; repeatable.")
@click.option("--ipv6", multiple=True, metavar="IP", help="A public IPv6 address of this host; repeatable.")
def command(  # one parameter for each option
    domains: tuple[str, ...],
    to: str,
    folder: Path | None,
    hostname: str | None,
    srs_domain: str | None,
    ipv4: tuple[str, ...],
    ipv6: tuple[str, ...],
) -> None:
    """Write a working configuration, rules, secrets and keys for a domain.

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
        _SYSTEM_STATE if folder is None else base / "state",
        Path("/run/forwarder") if folder is None else base / "run",
        given_addresses(ipv4, ipv6),
    )
    _refuse_loop(plan)
    files = _files(plan)
    _check_rules(plan, files)
    made = _write(plan, files)
    click.echo(_next_steps(plan, [*(file.path for file in files), *made]))


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


def _write(plan: _Plan, files: list[_NewFile]) -> list[Path]:
    """Write everything or nothing; give the key files."""
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
        return _make_keys(plan)
    except (OSError, ConfigError, KeysError) as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise click.ClickException(f"nothing was written: {error}") from None


def _make_keys(plan: _Plan) -> list[Path]:
    """Make a key for each domain that has none; with an error none is left."""
    now = SystemClock().now()
    made: list[Path] = []
    try:
        with locked(plan.keys):
            there = read_folder(plan.keys).keys
            for domain in plan.domains:
                if not there.get(domain):
                    new = NewKey(domain, free_selector(plan.keys / domain, RSA, now))
                    made.append(make(plan.keys, new, KeyState.SIGNING, now)[0].path)
    except KeysError:
        for path in made:
            path.unlink(missing_ok=True)
            path.with_name(ROTATION).unlink(missing_ok=True)
        raise
    return made


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


def _next_steps(plan: _Plan, written: list[Path]) -> str:
    listed = "\n".join(f"  {path}" for path in written)
    config = load(plan.config)
    site = site_of(config, plan.addresses or machine_addresses(config))
    return f"""Written:
{listed}

DNS records to publish; again at any time: forwarder dns records --config {plan.config}

{zone_file(zones(records(site)))}
Then:
  forwarder config check --config {plan.config}
  forwarder dns check --config {plan.config}
  forwarder serve --config {plan.config}

srs.secrets and the keys must belong to the user who runs the gateway; srs.secrets may come as the systemd credential
of that name, and what is below state_dir becomes the service's when it starts."""
