"""The queue desk over the spool itself, for `forwarder queue` while no gateway runs.

`offline_desk` is the place where it is put together. Nobody is told of changes: a gateway that starts reads the spool.
What the operator did goes to the journal, as from a running gateway; without a journal only alerts are shown.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import SystemRandom

from forwarder.app.settings import settlement_settings
from forwarder.app.wanted import Unready, read_rules, resend_refusal
from forwarder.config import Config
from forwarder.delivery.queue_desk import Desktop, QueueDesk
from forwarder.delivery.settlement import Settlement
from forwarder.model.address import Address, canonical_name
from forwarder.model.destination import Destination
from forwarder.model.ids import RANDOM_BITS, message_id
from forwarder.model.letter import Change, Letter, Part, Waiting
from forwarder.model.message import Outgoing
from forwarder.model.reply import Reply
from forwarder.ops.clock import SystemClock
from forwarder.ops.journald import SOCKET
from forwarder.ops.log import Level, Log, LogFormat, open_log
from forwarder.ports import SpoolError
from forwarder.rules import Forward, NotServed, RuleSet
from forwarder.spool.faults import SpoolRefused
from forwarder.spool.hands import Inline
from forwarder.spool.store import EmbeddedSpool

canonical_name("ü.example")  # loads idna and its codec: later the user may not be able to read them


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

    def new_id() -> str:
        return message_id(clock.now(), SystemRandom().getrandbits(RANDOM_BITS))

    rules = _Rules(config)
    try:
        desktop = Desktop(clock, new_id, log, rules.refuse)
        yield QueueDesk(spool, _Bouncer(config, clock, new_id, rules), _Nobody(), desktop)
    finally:
        await spool.close()


class _Nobody:
    """The running queue, where there is none."""

    def changed(self, waitings: Sequence[Waiting]) -> None:
        """Tell nobody."""

    def gone(self, parts: Sequence[Part]) -> None:
        """Tell nobody."""


class _Rules:
    """The rules in the files, read when they are needed first; there may be none that can be read."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._read: RuleSet | None = None

    def read(self) -> RuleSet:
        """Give them; raise `Unready`."""
        if self._read is None:
            self._read = read_rules(self._config)[1]
        return self._read

    def refuse(self, address: Address) -> str:
        """Say why nothing may be resent to an address, as a running gateway does; "" if it may."""
        try:
            return resend_refusal(address.domain, self._config, self.read())
        except Unready as error:
            return f"whether {address.domain} is handled here cannot be told without the rules: {error}"


class _Bouncer:
    """Writes DSNs. The rules say where those go whose sender is an address of ours."""

    def __init__(self, config: Config, clock: SystemClock, new_id: Callable[[], str], rules: _Rules) -> None:
        settings = settlement_settings(config, self._where, _unsigned)
        self._settlement = Settlement(settings, clock, SystemRandom(), new_id)
        self._rules = rules

    def bounce(self, letter: Letter, numbers: Sequence[int], reply: Reply) -> tuple[Sequence[Letter], Sequence[Change]]:
        """Give the DSNs, and what becomes of the parts; raise `SpoolError`."""
        return self._settlement.bounce(letter, numbers, reply)

    def _where(self, address: Address) -> tuple[Destination, ...]:
        try:
            rules = self._rules.read()
        except Unready as error:
            raise SpoolError(f"bounces need the rules: {error}") from None
        decision = rules.resolve(address, None, datetime.now(UTC).date())
        if isinstance(decision, NotServed):
            return (Destination(address),)
        return decision.destinations if isinstance(decision, Forward) else ()


def _unsigned(message: Outgoing) -> Outgoing:
    """Leave a DSN without a signature: the keys are the gateway's."""
    return message


def _log(clock: SystemClock) -> Log:
    if Path(SOCKET).exists():
        return open_log(LogFormat.JOURNAL, Level.INFO, clock)
    return open_log(LogFormat.TEXT, Level.ERROR, clock)
