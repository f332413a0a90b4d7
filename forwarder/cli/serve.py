"""`forwarder serve`: the gateway in the foreground."""

import sys
from pathlib import Path

import click

from forwarder.app import Service, Unready, Wanted, open_sockets, read
from forwarder.app.events import open_event_log
from forwarder.app.loop import run
from forwarder.cli.config import config_option
from forwarder.listener.sockets import BindError
from forwarder.ops.certificates import CertificateError
from forwarder.ops.control import ControlError
from forwarder.ops.systemd import ActivationError

_FAILURES = (Unready, BindError, CertificateError, ControlError, ActivationError, OSError)


@click.command
@config_option
def command(path: Path) -> None:
    """Run the gateway in the foreground until SIGTERM. SIGHUP reloads."""
    try:
        _serve(path, read(path))
    except _FAILURES as error:
        for line in str(error).splitlines():
            click.echo(line, err=True)
        sys.exit(1)


def _serve(path: Path, wanted: Wanted) -> None:
    log = open_event_log(wanted.config)
    sockets = open_sockets(wanted.config)

    async def main() -> None:
        await Service(path, wanted, log).run(sockets)

    run(main())
