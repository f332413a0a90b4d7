"""Messages per second through the gateway, beside a plain Postfix; CPU and memory of one big message.

    python -m tests.bench.throughput                       about two minutes on two cores
    python -m tests.bench.throughput --messages 200 --rounds 1

The load generator, the sink and the name server are processes of their own on loopback. A round sends the same number
of messages through each system, one message per connection and many per connection in turn; the time runs from the
first connection until the sink has taken the last message (Postfix answers before it delivers, the gateway after). The
first line measures generator against sink: no system can show more than that. What is printed is the median of all
rounds, with the lowest and highest. Postfix is Debian's with its defaults, relaying to the sink; it needs root.

Everything is bounded: messages by --messages, each run by --seconds. Exit status 1 when a message was not accepted.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from deploy.demo.gateway import gateway, listening_socket
from deploy.demo.letter import compose
from deploy.demo.setting import SENDER, SERVED, Ports, table, write_configuration
from deploy.demo.zone import Zone
from forwarder.config import as_text, load
from tests.bench.plain_postfix import postfix, why_not

_HOST = "127.0.0.1"
_SINK_HOST = "127.0.0.2"
_ONE, _MANY = "one message per connection", "many messages per connection"
_TIMES = (11, 12, 13, 14)  # utime stime cutime cstime of proc(5), counted from the state
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """A run did not come to its end; the text says why."""


@dataclass
class Target:
    """A system under measurement: where it listens, and its messages per second by kind of load."""

    name: str
    address: tuple[str, int]
    group: int = 0  # process group, 0 for the sink itself
    rates: dict[str, list[float]] = field(default_factory=lambda: {_ONE: [], _MANY: []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {_ONE: [], _MANY: []})  # milliseconds a message


class Sink:
    """The process that takes the messages."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.address = (_SINK_HOST, port)

    async def expect(self, number: int) -> None:
        """Start to count."""
        assert self._process.stdin
        self._process.stdin.write(f"expect {number}\n".encode())
        await self._line()

    async def done(self, seconds: float) -> float:
        """Wait for the last one; give the time at which it came."""
        try:
            return float((await asyncio.wait_for(self._line(), seconds)).split()[1])
        except TimeoutError:
            raise BenchError(f"the sink had not got everything after {seconds:.0f} s") from None

    async def _line(self) -> str:
        assert self._process.stdout
        return (await self._process.stdout.readline()).decode()


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """Run the sink."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", "sink", _SINK_HOST),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield Sink(process, int(await process.stdout.readline()))
    finally:
        process.stdin.close()
        await process.wait()


async def send(address: tuple[str, int], arguments: argparse.Namespace, messages: int, kind: str, size: int) -> float:
    """Send with the load generator; give the time at which it began."""
    words = {
        "messages": messages,
        "connections": min(arguments.connections, messages),
        "per-connection": 1 if kind == _ONE else max(1, messages // arguments.connections),
        "size": size,
        "to": f"you@{SERVED}",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", "send", address[0], str(address[1])),
        *(word for name, value in words.items() for word in (f"--{name}", str(value))),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), arguments.seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        where = f"{address[0]} port {address[1]}"
        raise BenchError(f"{where}: not everything was sent after {arguments.seconds} s") from None
    figures = json.loads(printed)
    if figures["accepted"] != messages:
        raise BenchError(f"{figures['accepted']} of {messages} messages were accepted; the others: {figures['other']}")
    start: float = figures["start"]
    return start


async def run(target: Target, sink: Sink, arguments: argparse.Namespace, kind: str) -> None:
    """Send the messages of one run; note how fast that was, and what it cost."""
    messages: int = arguments.messages
    used = cpu(target.group)
    await sink.expect(messages)
    start = await send(target.address, arguments, messages, kind, arguments.size)
    target.rates[kind].append(messages / (await sink.done(arguments.seconds) - start))
    target.cpu[kind].append((cpu(target.group) - used) / messages * 1000)


def cpu(group: int) -> float:
    """Give the seconds of CPU that a process group has used, those of its dead children included."""
    ticks: list[int] = [int(fields[index]) for fields in _stat_of(group).values() for index in _TIMES]
    return sum(ticks) / _TICKS


def memory(group: int, name: str) -> int:
    """Give VmRSS or VmHWM of a process group in kB."""
    total = 0
    for pid in _stat_of(group):
        if found := re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
            total += int(found[1])
    return total


def _stat_of(group: int) -> dict[int, list[str]]:
    """Give the fields of /proc/PID/stat from the third on, for every process of the group."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found[int(path.parent.name)] = fields
    return found


async def big(target: Target, sink: Sink, arguments: argparse.Namespace) -> str:
    """Send one big message; tell its time, CPU and memory."""
    for pid in _stat_of(target.group):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # VmHWM starts anew, proc(5)
    before, used = memory(target.group, "VmRSS"), cpu(target.group)
    await sink.expect(1)
    start = await send(target.address, arguments, 1, _ONE, arguments.big)
    took = await sink.done(arguments.seconds) - start
    peak = memory(target.group, "VmHWM")
    return (
        f"{took:.2f} s, {cpu(target.group) - used:.2f} s CPU, {(peak - before) / 1024:.1f} MB more memory at the peak"
    )


@asynccontextmanager
async def our_gateway(folder: Path, sink: Sink, arguments: argparse.Namespace) -> AsyncIterator[Target]:
    """Run the gateway with limits wide enough for the load; all else as `forwarder init` writes it."""
    zone = Zone(table(compose(SENDER, f"you@{SERVED}", datetime.now(UTC)), _HOST, _SINK_HOST))
    with zone.in_thread(_HOST) as (_, dns), listening_socket(_HOST) as listening:
        ports = Ports(dns=dns, inbox=sink.address[1], gateway=listening.getsockname()[1])
        path = await asyncio.to_thread(write_configuration, folder, ports)
        config, change = load(path), msgspec.structs.replace
        limits = change(config.limits, connections_per_client=1000, greeting_delay=0.0)
        delivery = change(config.delivery, connections_per_destination=arguments.connections)
        path.write_text(as_text(change(config, workers=arguments.workers, limits=limits, delivery=delivery)))
        async with gateway(path, listening, lambda line: None, folder / "log") as child:
            yield Target("forwarder", (_HOST, ports.gateway), child.pid)


@asynccontextmanager
async def plain_postfix(folder: Path, sink: Sink) -> AsyncIterator[Target]:
    """Run Postfix."""
    with listening_socket(_HOST) as probe:
        address = (_HOST, probe.getsockname()[1])
    folder.mkdir()
    running = postfix(folder, address, sink.address)
    group = await asyncio.to_thread(running.__enter__)
    try:
        yield Target("postfix", address, group)
    finally:
        await asyncio.to_thread(running.__exit__, None, None, None)


async def measure(arguments: argparse.Namespace, folder: Path) -> None:
    """Run all rounds and print the figures."""
    async with AsyncExitStack() as stack:
        end = await stack.enter_async_context(sink())
        targets = [Target("nothing between", end.address)]
        if arguments.only != "postfix":
            targets.append(await stack.enter_async_context(our_gateway(folder / "forwarder", end, arguments)))
        if arguments.only != "forwarder" and not (reason := why_not()):
            targets.append(await stack.enter_async_context(plain_postfix(folder / "postfix", end)))
        elif arguments.only != "forwarder":
            print(f"without Postfix: {reason}")
        _print_setting(arguments)
        for kind in (_ONE, _MANY):
            await _rounds(targets, end, arguments, kind)
        print(f"one message of {arguments.big / 1e6:.0f} MB")
        for target in targets[1:]:
            print(f"  {target.name:<16} {await big(target, end, arguments)}", flush=True)


async def _rounds(targets: list[Target], end: Sink, arguments: argparse.Namespace, kind: str) -> None:
    for _ in range(arguments.rounds):  # in turn, so that a slow moment of the machine hits all of them
        for target in targets:
            await run(target, end, arguments, kind)
    print(kind)
    for target in targets:
        rates = target.rates[kind]
        spread = f"({min(rates):.0f} to {max(rates):.0f})"
        cost = f"{statistics.median(target.cpu[kind]):5.2f} ms CPU a message" if target.group else ""
        print(f"  {target.name:<16} {statistics.median(rates):6.0f} msg/s {spread:<16} {cost}".rstrip(), flush=True)


def _print_setting(arguments: argparse.Namespace) -> None:
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; {arguments.messages} messages of "
        f"{arguments.size / 1e3:g} kB a run, {arguments.connections} connections, median of {arguments.rounds} rounds",
        flush=True,
    )


def main() -> None:
    """Measure, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.throughput", description="Messages per second through the gateway and Postfix."
    )
    add = parser.add_argument
    add("--messages", type=int, default=1000, help="messages in a run (default: %(default)s)")
    add("--connections", type=int, default=20, help="connections at a time (default: %(default)s)")
    add("--rounds", type=int, default=5, help="rounds, of which the median counts (default: %(default)s)")
    add("--size", type=int, default=10_000, help="octets of a message (default: %(default)s)")
    add("--big", type=int, default=25_000_000, help="octets of the one big message (default: %(default)s)")
    add("--seconds", type=float, default=60.0, help="the longest that a run may take (default: %(default)s)")
    add("--workers", type=int, default=1, help="workers of the gateway, 0 for one per core (default: %(default)s)")
    add("--only", choices=("forwarder", "postfix"), help="leave the other one out")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fwd-bench-"))
    folder.chmod(0o755)  # Postfix' own user must get through
    began = time.monotonic()
    try:
        asyncio.run(measure(arguments, folder))
    except BenchError as error:
        raise SystemExit(f"throughput: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
