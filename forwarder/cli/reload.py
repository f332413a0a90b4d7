"""`forwarder rules reload`: ask the running gateway to swap its rules, and say what changed.

The gateway reads and checks the files itself, all or nothing. Problems are printed one a line as
`file:line:column: reason`, exit status 1, and the rules that were in force stay.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from forwarder.cli.config import config_option, load_or_exit
from forwarder.ops.control import ControlError, call

_SIGNS = {"added": "+", "removed": "−", "changed": "~"}


@click.command
@config_option
@click.option(
    "--socket",
    "socket_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The control socket, instead of control.sock in the run_dir of the configuration.",
)
@click.option("--force", is_flag=True, help="Accept rules that are empty, missing or much fewer than before.")
def reload(path: Path, socket_path: Path | None, force: bool) -> None:
    """Make the running gateway read its rules again. With an error the old rules stay in force."""
    try:
        answer = call(socket_path or load_or_exit(path).run_dir / "control.sock", "rules.reload", force=force)
    except ControlError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    if not answer.get("ok"):
        _refused(answer)
        sys.exit(1)
    click.echo(_summary(answer))
    for kind, sign in _SIGNS.items():
        for pattern in _patterns(answer, kind):
            click.echo(f"  {sign}{pattern}")


def _summary(answer: Mapping[str, object]) -> str:
    counts = " ".join(f"{sign}{_count(answer, kind)} {kind}" for kind, sign in _SIGNS.items())
    return f"{counts}: {answer.get('rules', '?')} rules in force, after {answer.get('milliseconds', '?')} ms"


def _count(answer: Mapping[str, object], kind: str) -> object:
    """Give how many there are; a gateway may name some of them and give the whole number beside that."""
    return answer.get(f"{kind}_count", answer.get(kind, 0))


def _patterns(answer: Mapping[str, object], kind: str) -> list[str]:
    patterns = answer.get(kind)
    return [str(pattern) for pattern in patterns] if isinstance(patterns, list) else []


def _refused(answer: Mapping[str, object]) -> None:
    problems = answer.get("problems")
    for problem in problems if isinstance(problems, list) else []:
        click.echo(str(problem))
    if hint := answer.get("hint"):
        click.echo(str(hint), err=True)
    click.echo("Nothing was changed: the old rules stay in force.", err=True)
