"""Long campaigns: `python -m tests.kill small|whole [--rounds N] [--seed S]`. Status 1 if a promise was broken."""

import argparse
import sys
import time

from tests.kill import rounds, whole


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("what", choices=("small", "whole"))
    parser.add_argument("--rounds", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    begun = time.monotonic()
    tally = rounds.Tally()
    run = {"small": rounds.campaigns, "whole": whole.campaigns}[options.what]
    for tally in run(options.rounds, options.seed):
        print(f"{time.monotonic() - begun:.0f} s: {tally.told()}", flush=True)
        if tally.problems:
            break
    for state, count in sorted(tally.states.items()):
        print(f"died {state}: {count}")
    for problem in tally.problems:
        print(problem)
    return 1 if tally.problems else 0


if __name__ == "__main__":
    sys.exit(main())
