"""Long campaigns, and one state again.

`python -m tests.powercut --keep FOLDER [--states N] [--seed S]` records the spool at work, checks N states, all if 0;
`python -m tests.powercut --recording FILE --cut N --loss L --seed S [--into FOLDER]` checks one state of a recording
that was kept, and leaves the folder as the cut did in FOLDER.
"""

import argparse
import sys
from pathlib import Path

from tests.powercut import campaign, recorder
from tests.powercut.replayer import Loss, State
from tests.powercut.spool_campaign import again, record, recoveries
from tests.powercut.spool_promises import check


def main() -> int:
    """Do what the command line says; give how many states failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--keep", type=Path, help="an empty folder for recordings")
    parser.add_argument("--states", type=int, default=0, help="how many states of each recording, 0: all")
    parser.add_argument("--recoveries", type=int, default=20, help="how many recoveries are recorded and cut in turn")
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--loss", type=Loss, choices=list(Loss), default=Loss.NOTHING)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, help="leave the folder as the cut did here")
    options = parser.parse_args()
    if options.recording is not None:
        return _one(options.recording, State(options.cut, options.loss, options.seed), options.into)
    if options.keep is None:
        parser.error("--keep or --recording is needed")
    return _many(options.keep, options.seed, options.states, options.recoveries)


def _one(path: Path, state: State, into: Path | None) -> int:
    recording = recorder.load(path)
    if into is not None:
        campaign.tree_of(recording, state)[0].write(into)
    broken = list(campaign.Campaign(recording, check, again(path)).broken([state]))
    print(broken[0] if broken else "all promises are kept")
    return len(broken)


def _many(keep: Path, seed: int, size: int, cuts: int) -> int:
    recording = record("live", keep)
    failed = _campaign(keep / "recording", recording, seed, size)
    failed += _campaign(keep / "damage" / "recording", record("damage", keep / "damage"), seed, size)
    for path, recovery in recoveries(recording, keep, seed=seed, size=cuts):
        failed += _campaign(path, recovery, seed, size)
    return failed


def _campaign(path: Path, recording: recorder.Recording, seed: int, size: int) -> int:
    states = campaign.sample(recording, seed=seed, size=size) if size else campaign.all_states(recording, seed=seed)
    running = campaign.Campaign(recording, check, again(path))
    failed = 0
    for broken in running.broken(states):
        failed += 1
        print(broken, flush=True)
    print(f"{path}: {running.tally.states} states, {running.tally.checked} different, {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
