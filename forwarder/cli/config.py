"""`forwarder config check` and `config show`.

`check` looks at the configuration and at all that it names: rules, secrets, certificate, folders. Each problem is a
line `file: key: value: expected …` on stdout; exit status 1 when there is one. `show` prints the values in effect,
which hold no secrets: those are files of their own, of which only the names are shown.

Left out on purpose: the world outside the machine (DNS, port 25), and whether a listening address can be bound, which
a running gateway would make fail.
"""

import json
import os
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from forwarder.config import Config, ConfigError, as_text, as_tree, load
from forwarder.ops.secrets import SecretError, password, srs_secrets

DEFAULT_CONFIG = Path("/etc/forwarder/forwarder.toml")

config_option = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="FORWARDER_CONFIG",
    default=DEFAULT_CONFIG,
    show_default=True,
    metavar="FILE",
    help="The configuration file; also from $FORWARDER_CONFIG.",
)


def load_or_exit(path: Path) -> Config:
    """Read the configuration for a command; with problems print them on stderr and exit with status 1."""
    try:
        return load(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None


@click.group
def command() -> None:
    """Check the configuration, or show what is in effect."""


@command.command
@config_option
def check(path: Path) -> None:
    """Check the configuration and the files that it names."""
    try:
        config = load(path)
    except ConfigError as error:
        click.echo(str(error))
        raise SystemExit(1) from None
    problems = [problem for look in _LOOKS for problem in look(config)]
    for problem in problems:
        click.echo(f"{path}: {problem}")
    if problems:
        raise SystemExit(1)
    click.echo(f"{path}: fine: {_summary(config)}")


@command.command
@config_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(path: Path, as_json: bool) -> None:
    """Print every key with the value in effect."""
    config = load_or_exit(path)
    click.echo(json.dumps(as_tree(config), indent=2) if as_json else as_text(config), nl=as_json)


def _summary(config: Config) -> str:
    endpoints = ", ".join(map(str, config.listen.smtp))
    return f"{config.hostname} listens at {endpoints}, rewrites senders to {config.srs.domain}"


def _rules(config: Config) -> Iterator[str]:
    # Every command that takes --config loads this module, and few of them need the rules.
    from forwarder.ops.rulefiles import RuleFilesError, read_rules
    from forwarder.rules import RulesError, parse

    try:
        parse(read_rules(config.rules), config.postmaster)
    except RuleFilesError as error:
        yield from (f"rules: {problem}" for problem in error.problems)
    except RulesError as error:
        yield from (f"rules: {problem}" for problem in error.problems)


def _secrets(config: Config) -> Iterator[str]:
    try:
        srs_secrets(config.srs.secrets)
    except SecretError as error:
        yield f"srs.secrets: {error}"


def _keys(config: Config) -> Iterator[str]:
    from forwarder.app.wanted import Unready, read_keys  # all of the gateway

    try:
        read_keys(config)
    except Unready as error:
        yield from (f"dkim.keys: {problem}" for problem in error.problems)


def _password(config: Config) -> Iterator[str]:
    if config.delivery.smarthost is None or not config.delivery.smarthost.user:
        return
    try:
        password(config.delivery.smarthost_password)
    except SecretError as error:
        yield f"delivery.smarthost_password: {error}"


def _certificate(config: Config) -> Iterator[str]:
    certificate, key = config.tls.certificate, config.tls.key
    if certificate is None or key is None:
        return
    unreadable = [*_unreadable("tls.certificate", certificate), *_unreadable("tls.key", key)]
    yield from unreadable
    if unreadable:
        return
    if stat.S_IMODE(key.stat().st_mode) & 0o007:
        yield f'tls.key: "{key}": expected a file that not everybody can read: chmod 640'
    try:
        # The empty password keeps OpenSSL from asking the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        expected = f'expected a PEM certificate that fits "{key}", neither with a password: {error}'
        yield f'tls.certificate: "{certificate}": {expected}'


def _unreadable(name: str, path: Path) -> Iterator[str]:
    try:
        path.open("rb").close()
    except OSError as error:
        yield f'{name}: "{path}": expected a file that can be read: {error.strerror}'


def _folders(config: Config) -> Iterator[str]:
    for name, folder in (("state_dir", config.state_dir), ("run_dir", config.run_dir)):
        found = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
            user = f"user {os.geteuid()}"
            yield f'{name}: "{folder}": expected a folder that {user} may write to, or create: "{found}" is not one'


def _support(config: Config) -> Iterator[str]:
    from forwarder.app import unsupported  # all of the gateway

    yield from unsupported(config)


_LOOKS: tuple[Callable[[Config], Iterator[str]], ...] = (
    _support,
    _rules,
    _secrets,
    _keys,
    _password,
    _certificate,
    _folders,
)
