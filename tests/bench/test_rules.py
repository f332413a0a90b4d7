"""How fast rules are read and followed. Run with `-m bench -s`; only ratios are asserted, never seconds.

A ratio compares with a plain Python loop of the same length on the same machine at the same moment.
"""

import asyncio
import statistics
import time
from collections.abc import Callable

import pytest

from forwarder.model.address import Address
from forwarder.rules import Forward, RuleSet, compare, parse
from tests.rules.made import POSTMASTER, TODAY

pytestmark = pytest.mark.bench

COUNT = 100_000
PLAIN = "[example.org]\n" + "\n".join(f"user{n}.name -> dest{n}@mail{n % 50}.example.com" for n in range(COUNT))
PATTERNS = {
    "globs": "\n".join(f"news{n}-* -> me@gmail.com" for n in range(1_000)),
    "expressions": "\n".join(rf"/inv{n}-(\d+)/ -> me@gmail.com" for n in range(1_000)),
}


def seconds(work: Callable[[], object], times: int) -> float:
    """The median of several runs."""
    runs = []
    for _ in range(times):
        before = time.perf_counter()
        work()
        runs.append(time.perf_counter() - before)
    return statistics.median(runs)


def read(text: str) -> RuleSet:
    return parse([("b.rules", text)], POSTMASTER)


def loop() -> None:
    """What 100,000 short steps of Python cost here and now."""
    numbers: dict[str, int] = {}
    for number in range(COUNT):
        numbers[str(number)] = number


def follow(rules: RuleSet, locals_: list[str]) -> float:
    """The median of the seconds for one resolution."""
    addresses = [Address(local, "example.org") for local in locals_]

    def all_of_them() -> None:
        for address in addresses:
            rules.resolve(address, POSTMASTER, TODAY)

    return seconds(all_of_them, 5) / len(addresses)


def test_reading_100_000_rules() -> None:
    took, unit = seconds(lambda: read(PLAIN), 5), seconds(loop, 5)
    print(f"\n100,000 rules: {took:.3f} s, {took / unit:.1f} times a plain loop")
    assert took < unit * 100


def test_reading_grows_with_the_text_only() -> None:
    lines = PLAIN.split("\n")
    small = seconds(lambda: read("\n".join(lines[:10_001])), 5)
    large = seconds(lambda: read(PLAIN), 3)
    print(f"\n10,000: {small:.3f} s, 100,000: {large:.3f} s")
    assert large < small * 30


def test_following_exact_rules() -> None:
    names = [f"user{n}.name" for n in range(0, COUNT, 20)]
    large = follow(read(PLAIN), names)
    with_all = follow(read(f"{PLAIN}\n* -> me@gmail.com"), names)
    missed = follow(read(f"{PLAIN}\n* -> me@gmail.com"), [f"x{n}" for n in range(5_000)])
    small = follow(read("[example.org]\na -> b@c.com"), ["a"] * 5_000)
    print(
        f"\nexact: {large * 1e6:.1f} µs, beside a catch-all {with_all * 1e6:.1f}, by the catch-all {missed * 1e6:.1f}"
    )
    print(f"one rule in all: {small * 1e6:.1f} µs")
    assert large < small * 5


@pytest.mark.parametrize("kind", PATTERNS)
def test_following_patterns(kind: str) -> None:
    rules = read(f"[example.org]\n{PATTERNS[kind]}\n* -> me@gmail.com")
    last = follow(rules, ["news999-abc", "inv999-123"] * 1_000)
    missed = follow(rules, ["somebody"] * 2_000)
    one = follow(read(f"[example.org]\n{PATTERNS[kind].splitlines()[0]}\n* -> me@gmail.com"), ["somebody"] * 2_000)
    print(f"\n1,000 {kind}: the last {last * 1e6:.1f} µs, none {missed * 1e6:.1f}; one of them {one * 1e6:.1f}")
    assert missed < one * 20  # not a thousand


async def test_a_reload_in_a_thread_holds_nobody_up() -> None:
    rules = read(PLAIN)
    pauses: list[float] = []
    done = asyncio.Event()

    async def tick() -> None:
        while not done.is_set():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - before - 0.001)

    ticking = asyncio.create_task(tick())
    new = await asyncio.to_thread(read, PLAIN)
    change = await asyncio.to_thread(compare, rules, new)
    rules = new
    await asyncio.sleep(0.01)
    done.set()
    await ticking
    assert not change.suspicious
    assert isinstance(rules.resolve(Address("user1.name", "example.org"), None, TODAY), Forward)
    pauses.sort()
    middle = statistics.median(pauses)
    print(f"\nlongest pause {pauses[-1] * 1e3:.1f} ms, median {middle * 1e3:.1f} ms, {len(pauses)} turns")
    assert len(pauses) > 10
