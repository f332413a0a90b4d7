"""`forwarder serve`: the gateway in the foreground."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from forwarder.app import Service, Unready, Wanted, limitations, open_sockets, read
from forwarder.cli.config import config_option
from forwarder.listener.sockets import BindError
from forwarder.ops.certificates import CertificateError
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import ControlError
from forwarder.ops.library_log import adopt_library_logging
from forwarder.ops.log import Level, LogFormat, open_log
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
    config = wanted.config
    clock = SystemClock()
    log = open_log(LogFormat(config.log.format.value), Level[config.log.level.name], clock)
    adopt_library_logging(log, clock)
    for text in limitations(config):
        log.event("alert", component="config", text=text)
    sockets = open_sockets(config)

    async def main() -> None:
        await Service(path, wanted, log).run(sockets)

    _loop_runner()(main())


def _loop_runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Give uvloop's runner where it is installed (the extra `uvloop`), else the standard one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
