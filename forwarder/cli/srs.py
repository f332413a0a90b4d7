"""`forwarder srs encode ADDRESS` and `srs decode ADDRESS`: what the gateway does to an envelope sender, and back.

Domain, secrets and age limit come from the configuration, or from `--domain` and `--secrets` without one. `decode`
prints the original sender and how old the address is. What cannot be read, rewritten or reversed, and secrets that
cannot be had, are a line on stderr (with `--json` an `"error"` on stdout) and exit status 1.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict, TypeVar, Unpack

import click

from forwarder.cli.config import config_option, load_or_exit
from forwarder.model.address import Address, AddressError, parse_mailbox
from forwarder.ops.clock import SystemClock
from forwarder.ops.secrets import SecretError, srs_secrets
from forwarder.rewrite.srs import MAX_AGE_LIMIT, Srs, SrsError

_DAY = 86_400  # seconds
_MAX_AGE = 21  # days, as in a configuration that does not say

_Command = TypeVar("_Command", bound=Callable[..., None])


class _Source(TypedDict):
    """Where the settings come from: `path` is the configuration's, the others are None unless given."""

    path: Path
    domain: str | None
    secrets: Path | None
    max_age: int | None


def _options(function: _Command) -> _Command:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="As JSON."),
        click.option(
            "--max-age", type=click.IntRange(1, MAX_AGE_LIMIT), metavar="DAYS", help="The age limit, likewise."
        ),
        click.option("--secrets", type=click.Path(path_type=Path), metavar="FILE", help="The secrets, likewise."),
        click.option("--domain", metavar="D", help="The SRS domain, in place of a configuration."),
        config_option,
        click.argument("address"),
    ):
        function = option(function)
    return function


@click.group
def command() -> None:
    """Encode or decode an SRS address."""


@command.command
@_options
def encode(address: str, as_json: bool, **source: Unpack[_Source]) -> None:
    """Print the envelope sender that takes the place of ADDRESS."""
    _run(_encoded, address, source, as_json=as_json)


@command.command
@_options
def decode(address: str, as_json: bool, **source: Unpack[_Source]) -> None:
    """Print the sender that ADDRESS stands for and its age, or why it is refused."""
    _run(_decoded, address, source, as_json=as_json)


def _encoded(srs: Srs, sender: Address, day: int) -> tuple[str, Mapping[str, object]]:
    made = str(srs.encode(sender, day))
    return made, {"sender": str(sender), "address": made}


def _decoded(srs: Srs, address: Address, day: int) -> tuple[str, Mapping[str, object]]:
    sender, age = str(srs.decode(address, day)), srs.age(address, day)
    return f"{sender}\n{_age_text(age)}", {"address": str(address), "sender": sender, "age_days": age}


def _age_text(age: int) -> str:
    if age < 1:
        return "made today" if age == 0 else "made tomorrow, by a clock ahead of this one"
    return f"made {age} day{'s' if age > 1 else ''} ago"


def _run(
    act: Callable[[Srs, Address, int], tuple[str, Mapping[str, object]]], text: str, source: _Source, *, as_json: bool
) -> None:
    try:
        day = int(SystemClock().now().timestamp()) // _DAY
        shown, fields = act(_srs(source), parse_mailbox(text), day)
    except (AddressError, SecretError, SrsError) as error:
        if as_json:
            click.echo(json.dumps({"error": str(error)}))
        else:
            click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(json.dumps(fields) if as_json else shown)


def _srs(source: _Source) -> Srs:
    domain, secrets, max_age = source["domain"], source["secrets"], source["max_age"]
    if (domain is None) != (secrets is None):
        raise click.UsageError("--domain and --secrets go together")
    if domain is not None and secrets is not None:
        return Srs(domain, srs_secrets(secrets), max_age or _MAX_AGE)
    config = load_or_exit(source["path"]).srs
    return Srs(config.domain, srs_secrets(config.secrets), max_age or math.ceil(config.max_age / _DAY))
