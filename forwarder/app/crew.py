"""Who serves clients: this process alone, or workers. The service treats both alike.

`Alone` and `Several` start with a state, change to another one whole or not at all, and drain. A state is what the
files ask for and the certificate in use.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from forwarder.app.front import Front
from forwarder.app.settings import worker_count
from forwarder.app.wanted import Unready, Wanted, packed
from forwarder.ops.certificates import ServerCertificate
from forwarder.ops.desk import Desk, Store
from forwarder.ops.supervisor import Program, Supervisor, WorkersFailed
from forwarder.ops.wire import Ports
from forwarder.ports import EventLog

_ENTRY = "forwarder.cli.worker"
# What the parent alone says to systemd.
_PARENTS_OWN = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass(frozen=True, slots=True)
class State:
    """What is, or is to be, in force."""

    wanted: Wanted
    certificate: ServerCertificate


@dataclass(frozen=True, slots=True)
class Shared:
    """What all processes share, and the message files that workers write."""

    ports: Ports
    store: Store


class Crew(Protocol):
    """Serves clients."""

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        ...

    async def start(self, state: State) -> None:
        """Serve; raise `Unready`."""
        ...

    async def change(self, state: State) -> None:
        """Put another state in force everywhere; or raise `Unready`, and nothing has changed."""
        ...

    def announce(self) -> None:
        """Tell every process that it may have changed whether there is room."""
        ...

    async def drain(self, timeout: float) -> int:
        """Stop accepting, let transactions end; give how many clients were cut off after `timeout` seconds."""
        ...


class Alone:
    """One process does everything."""

    def __init__(self, sockets: Sequence[socket.socket], ports: Ports, log: EventLog) -> None:
        self._sockets = sockets
        self._ports = ports
        self._log = log
        self.front: Front

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self.front.connections

    async def start(self, state: State) -> None:
        """Serve; raise `Unready`."""
        listening = [one.getsockname()[:2] for one in self._sockets]
        self.front = Front(state.wanted, state.certificate.current, self._ports, listening, self._log)
        await self.front.serve(self._sockets)

    async def change(self, state: State) -> None:
        """Put another state in force; raise `Unready`."""
        self.front.adopt(self.front.prepare(state.wanted, state.certificate.current))

    def announce(self) -> None:
        """Tell nobody: the keeper is here."""

    async def drain(self, timeout: float) -> int:
        """Stop accepting, let transactions end; give how many clients were cut off."""
        cut_off = await self.front.drain(timeout)
        await self.front.close()
        return cut_off


class Several:
    """Workers serve; this process counts and keeps for all."""

    def __init__(self, count: int, sockets: Sequence[socket.socket], shared: Shared, log: EventLog) -> None:
        self._supervisor = Supervisor(
            Program(count, _command, _environment()),
            sockets,
            lambda channel: Desk(channel, shared.ports, shared.store),
            log,
        )

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._supervisor.connections

    async def start(self, state: State) -> None:
        """Start all workers; raise `Unready`."""
        try:
            await self._supervisor.start(await _packed(state))
        except WorkersFailed as error:
            raise Unready(str(error).splitlines()) from None

    async def change(self, state: State) -> None:
        """Put another state in force in all workers; raise `Unready`."""
        if problems := await self._supervisor.change(await _packed(state)):
            raise Unready(problems)

    def announce(self) -> None:
        """Tell all workers that it may have changed whether there is room."""
        self._supervisor.announce()

    async def drain(self, timeout: float) -> int:
        """Let all workers end; give how many clients were cut off."""
        return await self._supervisor.drain(timeout)


def crew_of(wanted: Wanted, sockets: Sequence[socket.socket], shared: Shared, log: EventLog) -> Alone | Several:
    """Give as many processes as the configuration asks for."""
    count = worker_count(wanted.config)
    return Alone(sockets, shared.ports, log) if count == 1 else Several(count, sockets, shared, log)


async def _packed(state: State) -> bytes:
    return await asyncio.to_thread(packed, state.wanted, state.certificate.pair)


def _command(channel: int, sockets: Sequence[int]) -> Sequence[str]:
    """Give the words that start a worker: our number, and descriptors. It does not search the working directory."""
    return [sys.executable, "-P", "-m", _ENTRY, str(os.getpid()), str(channel), *map(str, sockets)]


def _environment() -> Mapping[str, str]:
    """Give what a worker finds around it: the very modules that run here."""
    environment = {name: value for name, value in os.environ.items() if name not in _PARENTS_OWN}
    return {**environment, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
