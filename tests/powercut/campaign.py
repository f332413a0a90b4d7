"""Gives states of a recording to a checker, and says of the first that fails how to have it again."""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.powercut.recorder import Recording, Said, Tree
from tests.powercut.replayer import Disk, Loss, State, states

_MEMORY = "/dev/shm"

# A checker looks at a folder as the cut left it and at what was promised until then; it raises if these disagree.
# It may change the folder, as a restart would.
Checker = Callable[[Path, Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many states there were, and how many of them were different and so were checked."""

    states: int
    checked: int


class PromiseBroken(AssertionError):  # noqa: N818 - it says what is the matter
    """The checker did not like a state."""

    def __init__(self, state: State, promises: Sequence[str], problem: Exception, hint: str) -> None:
        last = "\n  ".join(promises[-5:])
        super().__init__(
            f"after a power cut ({state}): {type(problem).__name__}: {problem}\nlast promises:\n  {last}\nagain: {hint}"
        )
        self.state = state


def run(recording: Recording, checker: Checker, wanted: Iterable[State], *, again: str = "") -> Tally:
    """Check states; raise `PromiseBroken` for the first that fails. `again` is the command that repeats one state."""
    disk = Disk(recording)
    seen: set[bytes] = set()
    count = 0
    for state in sorted(wanted, key=lambda each: each.cut):
        count += 1
        disk.advance(state.cut)
        tree = disk.state(state)
        known = _fingerprint(tree, len(disk.said))
        if known in seen:
            continue
        seen.add(known)
        with tempfile.TemporaryDirectory(prefix="powercut-", dir=_scratch()) as scratch:
            folder = Path(scratch) / "disk"
            tree.write(folder)
            try:
                checker(folder, disk.said)
            except Exception as problem:
                raise PromiseBroken(state, disk.said, problem, f"{again} {state}") from problem
    return Tally(count, len(seen))


def all_states(recording: Recording, *, seed: int, rounds: int = 1) -> list[State]:
    """Give every cut with every loss."""
    return list(states(len(Disk(recording).moments), seed=seed, rounds=rounds))


def sample(recording: Recording, *, seed: int, size: int) -> list[State]:
    """Give some states: of each promise the one in which it is new and nothing is kept, then a random choice."""
    disk = Disk(recording)
    said = {operation.begin for operation in recording.operations if isinstance(operation.doing, Said)}
    first = [State(cut, Loss.NOTHING, seed) for cut, moment in enumerate(disk.moments, start=1) if moment in said]
    rest = [state for state in states(len(disk.moments), seed=seed) if state not in set(first)]
    return first + random.Random(seed).sample(rest, max(0, min(len(rest), size - len(first))))


def tree_of(recording: Recording, state: State) -> tuple[Tree, list[str]]:
    """Give one state, and what was promised by then."""
    disk = Disk(recording)
    disk.advance(state.cut)
    return disk.state(state), disk.said


def _scratch() -> str | None:
    """Give a folder in memory, if there is one: the checkers' own fsyncs are not what is tried."""
    return _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None


def _fingerprint(tree: Tree, promises: int) -> bytes:
    seen = hashlib.sha256(str(promises).encode())
    for path, number in tree.paths():
        content = tree.files.get(number)
        seen.update(f"{path}\0{'' if content is None else len(content)}\0".encode())
        seen.update(content or b"")
    return seen.digest()
