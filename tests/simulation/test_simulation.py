"""Thousands of seeds in processes of their own, and the simulation's own promises.

FORWARDER_SIMULATION_SEEDS says how many seeds, 10,000 where it is not set. A broken one prints the command that shows
it again.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.run import simulate

SEEDS = int(os.environ.get("FORWARDER_SIMULATION_SEEDS", "10000"))
CHUNKS = 20
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_keeps_every_promise_in_every_seed(chunk: int) -> None:
    first, last = chunk * SEEDS // CHUNKS, (chunk + 1) * SEEDS // CHUNKS - 1
    if last < first:
        pytest.skip("no seeds for this chunk")
    done = run("--seeds", f"{first}-{last}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{last - first + 1} seeds, 0 broken" in done.stdout


def test_tells_the_same_story_twice() -> None:
    stories = [run("--seed", "7", "--trace").stdout for _ in range(2)]
    told = [story.rpartition("\n1 seeds")[0] for story in stories]
    assert told[0] == told[1]
    assert "heard 250" in told[0]


def test_seeds_reach_what_they_are_meant_to_reach() -> None:
    counts: set[str] = set()
    for seed in range(60):
        counts |= simulate(seed).counts.keys()
    assert {"kills", "orderly stops", "DNS failures", "second copies: wire", "addresses returned"} <= counts


def test_a_killed_process_tidies_nothing_up() -> None:
    loop, process, told = VirtualLoop(), Process(1), []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
            told.append("after")
        finally:
            told.append("finally")

    async def main() -> None:
        PROCESS.set(process)
        task = asyncio.ensure_future(work())
        PROCESS.set(None)
        await asyncio.sleep(5)
        process.dead = True
        task.cancel()
        await asyncio.sleep(100)
        assert not task.done()
        assert not told
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    loop.run_until_complete(main())
    loop.close()
    assert loop.time() >= 105


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1100, check=False)
