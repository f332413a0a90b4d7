"""Run seeds: `python -m tests.simulation --seeds 0-999`, or tell the story of one: `--seed 17 --trace`.

Ends with 1 if a promise was broken, and names the command that shows it again. Sets iterate in the order of their
hashes, so the process starts itself again with a fixed PYTHONHASHSEED where there is none.
"""

import argparse
import gc
import os
import sys
import time
from collections import Counter

from tests.simulation.run import Result, simulate


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="simulate the gateway, seed by seed"
    )
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seeds", default="0-999", help="run these, from-to (default: 0-999)")
    parser.add_argument("--trace", action="store_true", help="tell what happens, with virtual times")
    parser.add_argument("--most", type=int, default=5, help="stop after so many broken seeds (default: 5)")
    options = parser.parse_args()
    gc.freeze()  # what was imported is not looked at again and again
    gc.set_threshold(20_000, 20, 20)
    first, _, last = options.seeds.partition("-")
    seeds = [options.seed] if options.seed is not None else range(int(first), int(last or first) + 1)
    broken, counts, began, ran = 0, Counter[str](), time.process_time(), 0
    for seed in seeds:
        result = simulate(seed, tracing=options.trace)
        ran += 1
        counts.update(result.counts)
        if result.broken:
            broken += 1
            _show(result)
            if broken >= options.most:
                break
        elif options.trace:
            _show(result)
    spent = time.process_time() - began
    print(
        f"{ran} seeds, {broken} broken, {1000 * spent / max(1, ran):.1f} ms of CPU each; {dict(sorted(counts.items()))}"
    )
    return 1 if broken else 0


def _show(result: Result) -> None:
    for seconds, text in result.trace:
        print(f"{seconds:14.3f}  {text}")
    print(
        f"seed {result.seed}: {result.steps} steps, {result.seconds:.0f} s of virtual time, trace {result.digest[:16]}"
    )
    for text in result.broken:
        print(f"    {text}")
    if result.broken:
        print(f"    again: python -m tests.simulation --seed {result.seed} --trace", flush=True)


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
