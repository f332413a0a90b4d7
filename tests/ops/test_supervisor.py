"""Workers as small programs: started, replaced, changed all or none, drained. What they hold is given back."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from forwarder.ops.desk import Desk, Store
from forwarder.ops.rpc import Channel
from forwarder.ops.supervisor import Program, Supervisor, WorkersFailed
from forwarder.ops.wire import Ports
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from tests.fakes import FakeClock, RecordingLog
from tests.ops.test_desk import Parent

# A worker in whose state the words say what it does: `refuse 2` (worker 2 refuses it), `silent 2`, `die 2`,
# `not-commit 2`. It writes down what it has in force, and enters one client.
WORKER = """
import asyncio, os, socket, sys
from forwarder.ops import wire
from forwarder.ops.rpc import Channel

number, parent, folder = 0, int(sys.argv[1]), sys.argv[2]
open(f"{folder}/ready {os.getpid()}", "w").close()

async def main():
    done, states = asyncio.Event(), {}
    def force(state):
        with open(f"{folder}/{number}.new", "w") as file:
            file.write(f"{os.getpid()} {state}")
        os.rename(f"{folder}/{number}.new", f"{folder}/{number}")
    async def follow(state, what):
        if f"silent {number}" in state:
            await asyncio.Event().wait()
        if f"{what} {number}" in state:
            os._exit(5)
        return (f"not with {number}",) if f"refuse {number}" in state else ()
    async def start(told):
        global number
        number, state = told
        problems = await follow(state.decode(), "die")
        if not problems:
            await channel.call(wire.ENTER, f"192.0.2.{number}")
            force(state.decode())
        return problems
    async def prepare(told):
        states[told[0]] = told[1].decode()
        return await follow(states[told[0]], "leave")
    async def commit(generation):
        if f"not-commit {number}" in states[generation]:
            await asyncio.Event().wait()
        force(states[generation])
        return ()
    async def drain(timeout):
        if os.path.exists(f"{folder}/stubborn {number}"):
            await asyncio.Event().wait()
        asyncio.get_running_loop().call_later(0, done.set)
        return 1
    channel = Channel(lambda: os._exit(3))
    channel.serve(wire.START, start)
    channel.serve(wire.PREPARE, prepare)
    channel.serve(wire.COMMIT, commit)
    channel.serve(wire.DRAIN, drain)
    await channel.open(socket.socket(fileno=parent))
    await done.wait()
    await channel.finish(5)
    os._exit(0)

asyncio.run(main())
"""


@dataclass
class Crew:
    """Two workers. `ports` counts their clients."""

    folder: Path
    log: RecordingLog = field(default_factory=RecordingLog)
    ports: Parent = field(default_factory=Parent)
    listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    supervisor: Supervisor = field(init=False)

    def __post_init__(self) -> None:
        self._make(30.0)

    def _make(self, patience: float) -> None:
        def command(channel: int, sockets: Sequence[int]) -> Sequence[str]:
            assert sockets == [self.listening.fileno()]
            return [sys.executable, "-c", WORKER, str(channel), str(self.folder)]

        limiter = LocalLimiter(SlidingLimiter(FakeClock().monotonic))
        ports = Ports(limiter, self.ports, self.ports, self.ports, self.ports)

        def make_desk(channel: Channel) -> Desk:
            return Desk(channel, ports, Store(lambda *_: pytest.fail("no letters here"), pytest.fail))

        self.supervisor = Supervisor(
            Program(2, command, dict(os.environ)), [self.listening], make_desk, self.log, patience
        )

    def impatient(self) -> None:
        """Let the supervisor wait for workers hardly at all."""
        self.supervisor._patience = 0.5

    def in_force(self, number: int) -> tuple[int, str]:
        """Give the process that serves as a worker, and its state."""
        pid, _, state = (self.folder / str(number)).read_text().partition(" ")
        return int(pid), state

    @property
    def states(self) -> list[str]:
        return [self.in_force(number)[1] for number in (1, 2)]

    @property
    def alerts(self) -> str:
        return "\n".join(str(event["text"]) for event in self.log.named("alert"))

    @property
    def inside(self) -> list[str]:
        """The clients that are counted."""
        inside: list[str] = []
        for asked in self.ports.asked:
            what, client = asked  # type: ignore[misc]
            (inside.append if what == "enter" else inside.remove)(client)  # type: ignore[has-type]
        return sorted(inside)

    async def spare(self) -> int:
        """Give the process that waits to take a place, once it is ready."""
        async with asyncio.timeout(60):
            while not (idle := self.launched - set(self.supervisor.pids)):
                await asyncio.sleep(0.01)
        (pid,) = idle
        return pid

    @property
    def launched(self) -> set[int]:
        """All processes that are there."""
        pids = {int(path.name.split()[1]) for path in self.folder.glob("ready *")}
        return {pid for pid in pids if Path(f"/proc/{pid}").exists()}

    async def started(self, count: int) -> None:
        """Wait until that many workers have started in all."""
        async with asyncio.timeout(60):
            while len(self.log.named("worker")) < count:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def crew(folder: Path, state: str = "first") -> AsyncIterator[Crew]:
    made = Crew(folder)
    await made.supervisor.start(state.encode())
    pids = made.supervisor.pids
    try:
        yield made
    finally:
        pids = [*pids, *made.supervisor.pids, *made.launched]
        await made.supervisor.drain(5.0)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]  # no process and no zombie
        assert made.inside == []
        assert made.listening.fileno() == -1


async def test_a_spare_takes_the_place_of_a_worker_that_dies(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        spare = await on.spare()
        os.kill(on.supervisor.pids[0], signal.SIGKILL)
        await on.started(3)
        assert on.in_force(1) == (spare, "first")
        assert await on.spare() != spare


async def test_a_spare_that_died_takes_no_place(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        spare = await on.spare()
        os.kill(spare, signal.SIGKILL)
        os.kill(on.supervisor.pids[0], signal.SIGKILL)
        await on.started(3)
        assert on.states == ["first", "first"]
        assert on.in_force(1)[0] != spare


async def test_all_have_started_when_it_returns(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        assert on.states == ["first", "first"]
        assert [on.in_force(number)[0] for number in (1, 2)] == on.supervisor.pids
        assert on.inside == ["192.0.2.1", "192.0.2.2"]
        assert on.supervisor.connections == 2
    assert on.log.named("alert") == []


@pytest.mark.parametrize(("state", "said"), [("refuse 2", "not with 2"), ("die 1", "worker 1 (pid ")])
async def test_a_start_that_fails_leaves_nothing(tmp_path: Path, state: str, said: str) -> None:
    on = Crew(tmp_path)
    with pytest.raises(WorkersFailed) as caught:
        await on.supervisor.start(state.encode())
    assert said in str(caught.value)
    assert (on.supervisor.pids, on.inside) == ([], [])
    on.listening.close()


async def test_one_that_dies_is_replaced_and_what_it_held_is_given_back(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        first = on.in_force(1)[0]
        os.kill(first, signal.SIGKILL)
        await on.started(3)
        assert on.in_force(1)[0] != first
        assert on.states == ["first", "first"]
        assert on.inside == ["192.0.2.1", "192.0.2.2"]
        assert on.ports.asked.count(("leave", "192.0.2.1")) == 1
        assert f"worker 1 (pid {first}) ended: killed by SIGKILL" in on.alerts


async def test_one_that_cannot_start_again_is_tried_after_a_pause(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        on.supervisor._state = b"die 1"  # as if it died of its state
        os.kill(on.in_force(1)[0], signal.SIGKILL)
        async with asyncio.timeout(60):
            while on.alerts.count("did not start") < 2:
                await asyncio.sleep(0.01)
        assert "exit status 5" in on.alerts
        on.supervisor._state = b"better"
        await on.started(3)
        assert on.states == ["better", "first"]


async def test_a_change_reaches_all(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        assert list(await on.supervisor.change(b"second")) == []
        assert on.states == ["second", "second"]
        os.kill(on.in_force(2)[0], signal.SIGKILL)
        await on.started(3)
        assert on.states == ["second", "second"]
    assert on.alerts.count("\n") == 0


@pytest.mark.parametrize(
    ("state", "said"),
    [("refuse 2", "not with 2"), ("silent 2", "did not answer within 0.5 seconds"), ("leave 2", "has ended")],
)
async def test_a_change_that_one_cannot_follow_reaches_none(tmp_path: Path, state: str, said: str) -> None:
    async with crew(tmp_path) as on:
        if "silent" in state:
            on.impatient()
        (problem,) = await on.supervisor.change(state.encode())
        assert said in problem
        if "leave" in state:
            await on.started(3)
        assert on.states == ["first", "first"]
        on.supervisor._patience = 30.0
        assert list(await on.supervisor.change(b"third")) == []
        assert on.states == ["third", "third"]


async def test_one_that_has_prepared_and_does_not_follow_is_replaced(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        on.supervisor._patience = 3.0
        stuck = on.in_force(2)[0]
        assert list(await on.supervisor.change(b"not-commit 2")) == []
        on.supervisor._patience = 30.0
        await on.started(3)
        assert on.in_force(2)[0] != stuck
        assert on.states == ["not-commit 2"] * 2


async def test_one_that_was_started_meanwhile_is_brought_along(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        prepare = on.supervisor._prepare
        once = [1]

        async def slowly(worker: Any, generation: int, state: bytes) -> Sequence[str]:
            told = await prepare(worker, generation, state)
            if once and worker.number == 1:
                once.clear()
                os.kill(on.in_force(1)[0], signal.SIGKILL)
                await on.started(3)  # with the state that is in force still
                assert on.states == ["first", "first"]
            return told

        on.supervisor._prepare = slowly  # type: ignore[method-assign]
        assert list(await on.supervisor.change(b"second")) == []
        assert on.states == ["second", "second"]


async def test_draining_counts_and_ends_those_that_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.ops.supervisor._GRACE", 1.0)
    on = Crew(tmp_path)
    await on.supervisor.start(b"first")
    pids = on.supervisor.pids
    (tmp_path / "stubborn 2").touch()
    assert await on.supervisor.drain(0.0) == 2  # one says so, the other one had a client
    assert "did not end by itself" in on.alerts
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert on.inside == []


async def test_nobody_listens_after_a_drain(tmp_path: Path) -> None:
    async with crew(tmp_path) as on:
        address = on.listening.getsockname()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
