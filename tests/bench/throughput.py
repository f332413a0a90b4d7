"""Messages per second through the gateway, beside a plain Postfix; CPU and memory of one big message.

    python -m tests.bench.throughput                       about two minutes on two cores
    python -m tests.bench.throughput --messages 200 --rounds 1
    python -m tests.bench.throughput --mode queue --sign --workers 2     durable before 250

The load generator, the sink and the name server are processes of their own on loopback. A round sends the same number
of messages through each system, one message per connection and many per connection in turn; the time runs from the
first connection until the sink has taken the last message (Postfix answers before it delivers, the gateway after). The
first line measures generator against sink: no system can show more than that. What is printed is the median of all
rounds, with the lowest and highest; and what each process of a system costs, the first one before the "+". Postfix is
Debian's with its defaults, relaying to the sink; it needs root.

Everything is bounded: messages by --messages, each run by --seconds, all of it by --in-all: no round is begun that
would take longer. However this program ends, what it has started ends with it. Exit status 1 when a message was not
accepted.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.demo.gateway import GatewayError, listening_socket
from tests.bench.gateway import HOST, SINK_HOST, TO, Wishes, our_gateway, signed_letter
from tests.bench.plain_postfix import postfix, why_not
from tests.bench.processes import cpu, die_with_parent, forget_peaks, memory

_ONE, _MANY, _BIG = "one message per connection", "many messages per connection", "one big message"
_LETTER = "letter"
_ENDING = 10.0  # seconds for the sink


class BenchError(Exception):
    """A run did not come to its end; the text says why."""


@dataclass
class Target:
    """A system under measurement: where it listens, and its messages per second by kind of load."""

    name: str
    address: tuple[str, int]
    group: int = 0  # process group, 0 for the sink itself
    rates: dict[str, list[float]] = field(default_factory=lambda: {_ONE: [], _MANY: []})
    # milliseconds a message: of the first process, and of all others
    cpu: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {_ONE: [], _MANY: []})


class Sink:
    """The process that takes the messages."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.address = (SINK_HOST, port)

    async def expect(self, number: int) -> None:
        """Start to count."""
        assert self._process.stdin
        self._process.stdin.write(f"expect {number}\n".encode())
        await asyncio.wait_for(self._line(), _ENDING)

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
        *(sys.executable, "-m", "tests.bench.load", "sink", SINK_HOST),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    assert process.stdin
    assert process.stdout
    try:
        yield Sink(process, int(await process.stdout.readline()))
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _ENDING)
        except TimeoutError:
            process.kill()
            await process.wait()


async def send(address: tuple[str, int], arguments: argparse.Namespace, messages: int, kind: str, size: int) -> float:
    """Send with the load generator; give the time at which it began."""
    words = {
        "messages": messages,
        "connections": min(arguments.connections, messages),
        "per-connection": max(1, messages // arguments.connections) if kind == _MANY else 1,
        "size": size,
        "to": TO,
        **({"letter": str(arguments.letter)} if arguments.letter and kind != _BIG else {}),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", "send", address[0], str(address[1])),
        *(word for name, value in words.items() for word in (f"--{name}", str(value))),
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), arguments.seconds)
    except TimeoutError:
        where = f"{address[0]} port {address[1]}"
        raise BenchError(f"{where}: not everything was sent after {arguments.seconds} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
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
    spent = {pid: (seconds - used.get(pid, 0.0)) / messages * 1000 for pid, seconds in cpu(target.group).items()}
    first = spent.pop(target.group, 0.0)
    target.cpu[kind].append((first, sum(spent.values())))


async def big(target: Target, sink: Sink, arguments: argparse.Namespace) -> str:
    """Send one big message; tell its time, CPU and memory."""
    forget_peaks(target.group)
    before, used = memory(target.group, "VmRSS"), sum(cpu(target.group).values())
    await sink.expect(1)
    start = await send(target.address, arguments, 1, _BIG, arguments.big)
    took = await sink.done(arguments.seconds) - start
    peak, spent = memory(target.group, "VmHWM"), sum(cpu(target.group).values()) - used
    return f"{took:.2f} s, {spent:.2f} s CPU, {(peak - before) / 1024:.1f} MB more memory at the peak"


@asynccontextmanager
async def forwarder(folder: Path, sink: Sink, arguments: argparse.Namespace) -> AsyncIterator[Target]:
    """Run the gateway as the command line says."""
    queue = arguments.mode == "queue"
    wishes = Wishes(queue, arguments.checks or queue, arguments.sign, arguments.workers, arguments.connections)
    letter = signed_letter(arguments.size)
    if wishes.checks:
        (folder.parent / _LETTER).write_bytes(letter.octets)
        arguments.letter = folder.parent / _LETTER
    async with our_gateway(folder, sink.address[1], wishes, letter.records) as (child, address):
        yield Target("forwarder", address, child.pid)


@asynccontextmanager
async def plain_postfix(folder: Path, sink: Sink) -> AsyncIterator[Target]:
    """Run Postfix."""
    with listening_socket(HOST) as probe:
        address = (HOST, probe.getsockname()[1])
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
            targets.append(await stack.enter_async_context(forwarder(folder / "forwarder", end, arguments)))
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
    began, left = time.monotonic(), arguments.until - time.monotonic()
    for number in range(1, arguments.rounds + 1):  # in turn, so that a slow moment of the machine hits all of them
        for target in targets:
            await run(target, end, arguments, kind)
        if kind == _ONE and (time.monotonic() - began) * (number + 1) / number > left * 0.4:
            break  # as much time is left for the other kind, and some for the big message
        if kind == _MANY and time.monotonic() + (time.monotonic() - began) / number > arguments.until:
            break
    print(f"{kind}, {number} rounds")
    for target in targets:
        rates = target.rates[kind]
        spread = f"({min(rates):.0f} to {max(rates):.0f})"
        cost = _cost(target.cpu[kind]) if target.group else ""
        print(f"  {target.name:<16} {statistics.median(rates):6.0f} msg/s {spread:<16} {cost}".rstrip(), flush=True)


def _cost(spent: Sequence[tuple[float, float]]) -> str:
    first, others = (statistics.median(each) for each in zip(*spent, strict=True))
    parts = f" ({first:.2f} + {others:.2f})" if others else ""
    return f"{statistics.median(map(sum, spent)):5.2f} ms CPU a message{parts}"


def _print_setting(arguments: argparse.Namespace) -> None:
    checks = arguments.checks or arguments.mode == "queue"
    how = [arguments.mode, *(["checks"] if checks else []), *(["signing"] if arguments.sign else [])]
    print(f"{', '.join(how)}, workers = {arguments.workers}")
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; {arguments.messages} messages of "
        f"{arguments.size / 1e3:g} kB a run, {arguments.connections} connections, medians of the rounds",
        flush=True,
    )


async def _bounded(arguments: argparse.Namespace, folder: Path) -> None:
    """Measure; stop what was started also when told to end or when it takes too long."""
    measuring = asyncio.ensure_future(measure(arguments, folder))
    told: list[bool] = []

    def stop() -> None:
        told.append(True)
        measuring.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    try:
        await asyncio.wait_for(measuring, arguments.in_all)
    except TimeoutError:
        raise BenchError(f"not everything was measured after {arguments.in_all:.0f} s") from None
    except asyncio.CancelledError:
        if not told:
            raise
        raise BenchError("told to end") from None


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
    add("--in-all", type=float, default=300.0, help="the longest that everything may take (default: %(default)s)")
    add("--mode", choices=("cutthrough", "queue"), default="cutthrough", help="delivery.mode (default: %(default)s)")
    add("--checks", action="store_true", help="SPF, DKIM, DMARC and ARC of a signed letter; always with --mode queue")
    add("--sign", action="store_true", help="sign with RSA-2048, and with --checks seal")
    add("--workers", type=int, default=1, help="workers of the gateway, 0 for one per core (default: %(default)s)")
    add("--only", choices=("forwarder", "postfix"), help="leave the other one out")
    arguments = parser.parse_args()
    arguments.letter = None
    folder = Path(tempfile.mkdtemp(prefix="fwd-bench-"))
    folder.chmod(0o755)  # Postfix' own user must get through
    began = time.monotonic()
    arguments.until = began + arguments.in_all
    try:
        asyncio.run(_bounded(arguments, folder))
    except (BenchError, GatewayError) as error:
        raise SystemExit(f"throughput: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
