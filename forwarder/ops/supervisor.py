"""Workers: started, replaced when they die, told of a new state all together or not at all, drained.

    supervisor = Supervisor(program, sockets, make_desk, log)
    await supervisor.start(state)              every worker serves, or `WorkersFailed`
    problems = await supervisor.change(state)  every worker has it, or none, and why
    await supervisor.drain(25.0)

A state is octets that only workers understand. One is in force at any time: a worker that is started, whenever that is,
begins with it. A change is prepared by all workers, which may fail, and then committed by all, which cannot: a worker
that does not even answer then is killed and replaced.

A worker that ends without having been told to is replaced at once, by a spare process that has loaded the program
already and only needs to be told the state; one that ends within seconds of its start, after a pause that doubles each
time. Both are an `alert`. What it held is given back by its desk when the process is certainly
gone. The sockets are shared: clients that nobody has accepted yet wait for any worker.

Left out on purpose: a worker that hangs is not found out.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from forwarder.ops import wire
from forwarder.ops.desk import Desk
from forwarder.ops.rpc import Channel, Method, RpcError
from forwarder.ports import EventLog

_STABLE = 5.0  # seconds after which a worker's end says nothing about its beginning
_ENDING = 1.0  # seconds that a worker has to end when its channel has
_SHORTEST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_GRACE = 10.0  # seconds beyond a drain that a worker has to end

Question = TypeVar("Question")


@dataclass(frozen=True, slots=True)
class Program:
    """What is run `count` times: the words for the channel's descriptor and those of the sockets."""

    count: int
    command: Callable[[int, Sequence[int]], Sequence[str]]
    environment: Mapping[str, str]


class WorkersFailed(Exception):  # noqa: N818 - it says what is the matter
    """The workers cannot be started; the text has a line for each reason."""


@dataclass(eq=False, slots=True)
class _Worker:
    """A process that was started; a spare has the number 0. `end` is set when its channel has ended."""

    number: int
    process: asyncio.subprocess.Process
    channel: Channel
    desk: Desk
    end: asyncio.Event
    begun: float
    started: asyncio.Task[Sequence[str]] | None = field(default=None)

    @property
    def name(self) -> str:
        return f"worker {self.number} (pid {self.process.pid})"


class Supervisor:
    """Keeps workers. `make_desk` gives the desk that serves one; the desk serves from the first moment on.

    `patience` is how many seconds workers have to start and to prepare a state.
    """

    def __init__(
        self,
        program: Program,
        sockets: Sequence[socket.socket],
        make_desk: Callable[[Channel], Desk],
        log: EventLog,
        patience: float = 30.0,
    ) -> None:
        self._program = program
        self._sockets = sockets
        self._make_desk = make_desk
        self._log = log
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._state = b""
        self._generation = 0
        self._draining = False
        self._workers: dict[int, _Worker] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._spare: asyncio.Task[_Worker] | None = None

    @property
    def pids(self) -> Sequence[int]:
        """The processes that serve now, in the order of their numbers."""
        return [worker.process.pid for _, worker in sorted(self._workers.items())]

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return sum(worker.desk.connections for worker in self._workers.values())

    def announce(self) -> None:
        """Tell all workers whether custody is refused now, where that has changed."""
        for worker in self._workers.values():
            worker.desk.announce()

    # Beginning

    async def start(self, state: bytes) -> None:
        """Start all workers; return when every one serves. Raises `WorkersFailed`, and then none is left."""
        self._state = state
        try:
            workers = [await self._spawn(number) for number in range(1, self._program.count + 1)]
        except OSError as error:
            await self._give_up()
            raise WorkersFailed(f"a worker cannot be started: {error.strerror}") from error
        problems = [problem for told in await asyncio.gather(*map(self._begun, workers)) for problem in told]
        if problems:
            await self._give_up()
            raise WorkersFailed("\n".join(dict.fromkeys(problems)))
        for worker in workers:
            self._tell_started(worker)
        self._watches = [self._loop.create_task(self._watch(worker)) for worker in workers]
        self._spare = self._loop.create_task(self._launch())

    async def _give_up(self) -> None:
        for worker in list(self._workers.values()):
            await self._bury(worker)

    async def _spawn(self, number: int) -> _Worker:
        """Have a process be a worker with the state in force."""
        worker = await self._take_spare() or await self._launch()
        worker.number = number
        worker.begun = self._loop.time()
        worker.started = self._loop.create_task(self._ask(worker, wire.START, (number, self._state)))
        self._workers[number] = worker
        return worker

    async def _take_spare(self) -> _Worker | None:
        """Give the spare process, if there is one that lives, and begin to start another."""
        if self._spare is None:
            return None
        launching, self._spare = self._spare, self._loop.create_task(self._launch())
        try:
            spare = await launching
        except OSError:
            return None
        if spare.end.is_set():
            await self._bury(spare)
            return None
        return spare

    async def _launch(self) -> _Worker:
        """Start a process."""
        ours, theirs = socket.socketpair()
        end = asyncio.Event()
        shared = [one.fileno() for one in self._sockets]
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program.command(theirs.fileno(), shared),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *shared),
                env=self._program.environment,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        channel = Channel(end.set, self._report)
        await channel.open(ours)
        return _Worker(0, process, channel, self._make_desk(channel), end, self._loop.time())

    async def _begun(self, worker: _Worker) -> Sequence[str]:
        assert worker.started is not None
        return await worker.started

    async def _ask(
        self, worker: _Worker, method: Method[Question, tuple[str, ...]], question: Question
    ) -> Sequence[str]:
        """Give the problems that a worker answers, or that it did not."""
        try:
            async with asyncio.timeout(self._patience):
                return await worker.channel.call(method, question)
        except TimeoutError:
            return [f"{worker.name} did not answer within {self._patience:g} seconds"]
        except RpcError as error:
            return [f"{worker.name}: {error}"]

    # Replacing

    async def _watch(self, worker: _Worker) -> None:
        """Keep a place occupied, by a worker that has started."""
        pause = 0.0
        while True:
            await worker.end.wait()
            if self._draining:
                return
            status = await self._bury(worker)
            self._alert(f"{worker.name} ended: {_said(status)}; another one takes its place")
            stable = self._loop.time() - worker.begun >= _STABLE
            pause = 0.0 if stable else min(max(_SHORTEST_PAUSE, 2 * pause), _LONGEST_PAUSE)
            worker = await self._replace(worker.number, pause)
            problems = await self._begun(worker)
            if problems:
                self._alert(f"{worker.name} did not start: {'; '.join(problems)}")
                worker.channel.close()
            else:
                self._tell_started(worker)

    async def _replace(self, number: int, pause: float) -> _Worker:
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._spawn(number)
            except OSError as error:
                self._alert(f"worker {number} cannot be started: {error.strerror}")
                pause = min(max(_SHORTEST_PAUSE, 2 * pause), _LONGEST_PAUSE)

    def _tell_started(self, worker: _Worker) -> None:
        self._log.event("worker", worker=worker.number, pid=worker.process.pid, outcome="started")

    async def _bury(self, worker: _Worker) -> int:
        """Make sure that a worker is gone, and give back what it held; give its exit status."""
        worker.channel.close()
        try:
            # Killing one that has just ended would take its exit status from asyncio, which then makes one up.
            async with asyncio.timeout(_ENDING):
                status = await worker.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            status = await worker.process.wait()
        await worker.end.wait()
        if worker.started is not None:
            await worker.started
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]
        worker.desk.lost()
        return status

    # Changing

    async def change(self, state: bytes) -> Sequence[str]:
        """Put another state in force in all workers; or in none, and give the problems. One at a time."""
        self._generation += 1
        generation = self._generation
        asked = list(self._workers.values())
        told = await asyncio.gather(*(self._prepare(worker, generation, state) for worker in asked))
        problems = [problem for some in told for problem in some]
        if problems:
            for worker in asked:
                worker.channel.tell(wire.ABORT, generation)
            return list(dict.fromkeys(problems))
        self._state = state  # whoever is started from now on begins with it
        late = [worker for worker in self._workers.values() if worker not in asked]
        await asyncio.gather(
            *(self._commit(worker, generation) for worker in asked),
            *(self._catch_up(worker, generation, state) for worker in late),
        )
        return []

    async def _prepare(self, worker: _Worker, generation: int, state: bytes) -> Sequence[str]:
        return await self._ask(worker, wire.PREPARE, (generation, state))

    async def _commit(self, worker: _Worker, generation: int) -> None:
        self._require(worker, await self._ask(worker, wire.COMMIT, generation))

    async def _catch_up(self, worker: _Worker, generation: int, state: bytes) -> None:
        """Bring a worker that was started meanwhile, with the old state, to the new one."""
        problems = await self._prepare(worker, generation, state)
        self._require(worker, problems)
        if not problems:
            await self._commit(worker, generation)

    def _require(self, worker: _Worker, problems: Sequence[str]) -> None:
        """End a worker that does not follow: the next one has the state in force."""
        if problems and not worker.end.is_set():
            self._alert("; ".join(problems))
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()

    # Ending

    async def drain(self, timeout: float) -> int:
        """Let all transactions end, for `timeout` seconds; give the number of clients that were cut off."""
        self._draining = True
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        dismissed = self._loop.create_task(self._dismiss_spare())
        drained = [asyncio.ensure_future(self._drain(worker, timeout)) for worker in self._workers.values()]
        await asyncio.sleep(0)  # the workers are told first: whoever accepts a client now also serves it
        for one in self._sockets:
            one.close()
        cut_off = sum(await asyncio.gather(*drained))
        await dismissed
        return cut_off

    async def _dismiss_spare(self) -> None:
        if self._spare is not None:
            with contextlib.suppress(OSError):
                await self._bury(await self._spare)

    async def _drain(self, worker: _Worker, timeout: float) -> int:
        try:
            async with asyncio.timeout(timeout + _GRACE):
                cut_off = await worker.channel.call(wire.DRAIN, timeout)
                await worker.process.wait()
        except (TimeoutError, RpcError):
            cut_off = worker.desk.connections
            self._alert(f"{worker.name} did not end by itself")
        await self._bury(worker)
        return cut_off

    def _alert(self, text: str) -> None:
        self._log.event("alert", component="workers", text=text)

    def _report(self, error: BaseException, code: int) -> None:
        """Take note of what a port raised when a worker asked it."""
        self._log.event("alert", component="workers", method=code, error=type(error).__name__, text=str(error))


def _said(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
