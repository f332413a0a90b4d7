"""The queue desk over the spool itself, for `forwarder queue` while no gateway runs.

`offline_desk` is the place where it is put together. Nobody is told of changes: a gateway that starts reads the spool.
What the operator did goes to the journal, as from a running gateway; without a journal only alerts are shown.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import SystemRandom

from forwarder.config import Config
from forwarder.delivery.queue_desk import Bouncer, Desktop, QueueDesk
from forwarder.model.address import canonical_name
from forwarder.model.letter import Change, Letter, Part, Waiting
from forwarder.model.reply import Reply
from forwarder.ops.clock import SystemClock
from forwarder.ops.journald import SOCKET
from forwarder.ops.log import Level, Log, LogFormat, open_log
from forwarder.ports import SpoolError
from forwarder.spool.faults import SpoolRefused
from forwarder.spool.hands import Inline
from forwarder.spool.store import EmbeddedSpool

canonical_name("ü.example")  # loads idna and its codec: later the user may not be able to read them
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Unopened(Exception):  # noqa: N818 - it says what is the matter
    """The spool cannot be opened; the text has a line for each reason."""


@asynccontextmanager
async def offline_desk(config: Config) -> AsyncIterator[QueueDesk]:
    """Open the spool of a configuration and give a desk for it; raise `Unopened`."""
    clock = SystemClock()
    log = _log(clock)
    try:
        spool = await EmbeddedSpool.open(config.state_dir / "spool", clock=clock, log=log, hands=Inline())
    except SpoolRefused as error:
        raise Unopened("\n".join(error.problems)) from None
    except SpoolError as error:
        raise Unopened(str(error)) from None
    try:
        yield QueueDesk(spool, _bouncer(), _Nobody(), Desktop(clock, lambda: _new_id(clock), log))
    finally:
        await spool.close()


class _Nobody:
    """The running queue, where there is none."""

    def changed(self, waitings: Sequence[Waiting]) -> None:
        """Tell nobody."""

    def gone(self, parts: Sequence[Part]) -> None:
        """Tell nobody."""


class _NoBouncer:
    """Says that bounces need the running gateway."""

    def bounce(self, letter: Letter, numbers: Sequence[int], reply: Reply) -> tuple[Sequence[Letter], Sequence[Change]]:
        """Refuse."""
        raise SpoolError("bounces are written by the running gateway: start it first")


def _bouncer() -> Bouncer:
    return _NoBouncer()


def _log(clock: SystemClock) -> Log:
    if Path(SOCKET).exists():
        return open_log(LogFormat.JOURNAL, Level.INFO, clock)
    return open_log(LogFormat.TEXT, Level.ERROR, clock)


def _new_id(clock: SystemClock) -> str:
    """Make an id as `session.gateway` does."""
    number = int(clock.now().timestamp() * 1000) << 30 | SystemRandom().getrandbits(30)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -5, -5))
