"""A worker: serves clients with the ports and the state of its parent.

It gets the listening sockets and a socket to the parent by descriptor (`cli/worker.py`), everything else over the
latter; it reads no configuration. It ends with status 0 when it was drained, and at once, whatever it is doing, when
its parent has gone: what it counts and keeps is there. SIGTERM, which some send to a whole group, drains too; SIGINT
and SIGHUP are the parent's.
"""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from forwarder.app.events import open_event_log
from forwarder.app.front import Front, Ready
from forwarder.app.loop import run
from forwarder.app.wanted import Unready, Wanted, unpacked
from forwarder.model.message import Content
from forwarder.ops import wire
from forwarder.ops.certificates import CertificateError, context_of
from forwarder.ops.remote import remote_ports
from forwarder.ops.rpc import Channel
from forwarder.rules import RulesError
from forwarder.spool.disk import RealDisk
from forwarder.spool.faults import SpoolBroken
from forwarder.spool.files import MessageFiles
from forwarder.spool.hands import Threads

_ORPHANED = 3  # exit status
_DRAIN = 30.0  # seconds, where nobody says how many
_ANSWERING = 5.0  # seconds


class Worker:
    """One worker; `run` returns when it has been drained."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self._prepared: tuple[int, Ready] | None = None
        self._serving = asyncio.Event()
        self._drained: asyncio.Task[int] | None = None
        self._done = asyncio.Event()
        self._front: Front
        self._channel = channel = Channel(_orphaned)
        channel.serve(wire.START, self._start)
        channel.serve(wire.PREPARE, self._prepare)
        channel.serve(wire.COMMIT, self._commit)
        channel.hear(wire.ABORT, self._abort)
        channel.serve(wire.DRAIN, self._drain)

    async def run(self, parent: socket.socket) -> None:
        """Serve until told to drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._begin_to_drain, _DRAIN)
        await self._channel.open(parent)
        await self._done.wait()
        await self._front.close()
        await self._channel.finish(_ANSWERING)
        os._exit(0)  # nothing is left to do, and the channel's end must not be taken for the parent's

    async def _start(self, told: tuple[int, bytes]) -> tuple[str, ...]:
        number, state = told
        try:
            wanted, context = await asyncio.to_thread(_built, state)
            self._ports = remote_ports(self._channel, _Files(wanted.config.state_dir / "spool", self._channel))
            log = open_event_log(wanted.config, number)
            listening = [one.getsockname()[:2] for one in self._sockets]
            self._front = Front(wanted, lambda: context, self._ports, listening, log)
            await self._front.serve(self._sockets)
        except Unready as error:
            return error.problems
        self._serving.set()
        return ()

    async def _prepare(self, told: tuple[int, bytes]) -> tuple[str, ...]:
        generation, state = told
        await self._serving.wait()
        try:
            wanted, context = await asyncio.to_thread(_built, state)
            self._prepared = generation, await asyncio.to_thread(self._front.prepare, wanted, lambda: context)
        except Unready as error:
            return error.problems
        return ()

    async def _commit(self, generation: int) -> tuple[str, ...]:
        if self._prepared is None or self._prepared[0] != generation:
            return (f"state {generation} was not prepared",)
        self._front.adopt(self._prepared[1])
        self._prepared = None
        return ()

    def _abort(self, generation: int) -> None:
        if self._prepared is not None and self._prepared[0] == generation:
            self._prepared = None

    async def _drain(self, timeout: float) -> int:
        return await asyncio.shield(self._begin_to_drain(timeout))

    def _begin_to_drain(self, timeout: float) -> asyncio.Task[int]:
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_task(self._finish(timeout))
            self._drained.add_done_callback(lambda _: self._done.set())
        return self._drained

    async def _finish(self, timeout: float) -> int:
        await self._serving.wait()
        return await self._front.drain(timeout)


class _Files:
    """The spool's message files; a disk that fails is told to the parent."""

    def __init__(self, folder: Path, channel: Channel) -> None:
        self._files = MessageFiles(folder, RealDisk(), Threads())
        self._channel = channel

    async def write(self, id: str, content: Content) -> Content:
        """Store a content durably."""
        try:
            return await self._files.write(id, content)
        except SpoolBroken as error:
            self._channel.tell(wire.BROKEN, str(error))
            raise

    def remove(self, id: str) -> None:
        """Remove soon what was stored for nothing."""
        self._files.remove(id)


def _built(state: bytes) -> tuple[Wanted, ssl.SSLContext]:
    try:
        wanted, pair = unpacked(state)
        return wanted, context_of(pair)
    except CertificateError as error:
        raise Unready([str(error)]) from None
    except RulesError as error:
        raise Unready([str(problem) for problem in error.problems]) from None


def _orphaned() -> None:
    os._exit(_ORPHANED)


def work(parent: int, listening: Sequence[int]) -> None:
    """Be a worker. The numbers are descriptors."""
    channel = socket.socket(fileno=parent)
    sockets = [socket.socket(fileno=one) for one in listening]
    for one in [channel, *sockets]:
        one.set_inheritable(False)

    async def main() -> None:
        await Worker(sockets).run(channel)

    run(main())
