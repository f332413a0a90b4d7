"""Records the spool at work, and again while it recovers from a cut."""

import random
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.powercut import campaign, recorder
from tests.powercut.recorder import Made, Recording, Synced, Written
from tests.powercut.replayer import Disk


def record(what: str, scratch: Path) -> Recording:
    """Record one of the programs of `spool_program` from the making of a spool on; keep it in `scratch`."""
    (scratch / "disk").mkdir(mode=0o700, parents=True)
    return _record(what, scratch)


def _record(what: str, scratch: Path) -> Recording:
    folder = (scratch / "disk").resolve()
    command = [sys.executable, "-m", "tests.powercut.spool_program", what, str(folder)]
    recording = recorder.record(command, folder, scratch / "trace")
    recording.save(scratch / "recording")
    return recording


def making(recording: Recording) -> int:
    """Give the cut at which the spool's first database was whole: its log has been synced with the tables in it."""
    doings = (each.doing for each in recording.operations)
    log = next(doing.file for doing in doings if isinstance(doing, Made) and doing.name.endswith("-wal"))
    tables = next(each for each in recording.operations if isinstance(each.doing, Written) and each.doing.file == log)
    syncs = (each.end for each in recording.operations if each.doing == Synced(log) and each.begin > tables.end)
    _, with_tables = next(syncs), next(syncs)  # the first is for the log's header
    return Disk(recording).moments.index(with_tables) + 1


def again(recording: Path) -> str:
    """Give the command that checks one state of a recording that was kept, without the state."""
    return f"python -m tests.powercut --recording {shlex.quote(str(recording))}"


def recoveries(first: Recording, scratch: Path, *, seed: int, size: int) -> Iterator[tuple[Path, Recording]]:
    """Record what the spool does when it is opened after each of some cuts; give where that is kept too."""
    later = [state for state in campaign.all_states(first, seed=seed) if state.cut >= making(first)]
    wanted = random.Random(seed).sample(later, size)
    for number, state in enumerate(sorted(wanted, key=lambda each: each.cut)):
        tree, said = campaign.tree_of(first, state)
        place = scratch / f"recovery-{number}"
        tree.write(place / "disk")
        recording = _record("reopen", place)
        recording.promised = list(said)
        recording.save(place / "recording")
        yield place / "recording", recording
