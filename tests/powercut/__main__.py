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
from tests.powercut.spool_campaign import again, record, second_cuts
from tests.powercut.spool_promises import check


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.powercut", description=__doc__)
    parser.add_argument("--keep", type=Path, help="an empty folder for recordings")
    parser.add_argument("--states", type=int, default=0, help="how many states of the first recording, 0: all")
    parser.add_argument("--recoveries", type=int, default=20, help="how many recoveries are recorded and cut in turn")
    parser.add_argument("--recording", type=Path)
    parser.add_argument("--cut", type=int, default=0)
    parser.add_argument("--loss", type=Loss, choices=list(Loss), default=Loss.NOTHING)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--into", type=Path, help="leave the folder as the cut did here")
    options = parser.parse_args()
    if options.recording is not None:
        _one(options.recording, State(options.cut, options.loss, options.seed), options.into)
    elif options.keep is not None:
        _many(options.keep, options.seed, options.states, options.recoveries)
    else:
        parser.error("--keep or --recording is needed")


def _one(path: Path, state: State, into: Path | None) -> None:
    recording = recorder.load(path)
    if into is not None:
        campaign.tree_of(recording, state)[0].write(into)
    campaign.run(recording, check, [state], again=again(path))
    print("all promises are kept")


def _many(keep: Path, seed: int, size: int, recoveries: int) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    recording = record(keep)
    states = campaign.sample(recording, seed=seed, size=size) if size else campaign.all_states(recording, seed=seed)
    print(campaign.run(recording, check, states, again=again(keep / "recording")), flush=True)
    for tally in second_cuts(recording, keep, seed=seed, recoveries=recoveries, size=0):
        print(tally, flush=True)


if __name__ == "__main__":
    try:
        main()
    except campaign.PromiseBroken as broken:
        sys.exit(str(broken))
