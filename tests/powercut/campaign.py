"""Gives states of a recording to a checker, and says of the first that fails how to have it again."""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
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


@dataclass(slots=True)
class Campaign:
    """Goes through states of a recording; `again` is the command that repeats one, without the state."""

    recording: Recording
    checker: Checker
    again: str = ""
    tally: Tally = Tally(0, 0)

    def broken(self, wanted: Iterable[State]) -> Iterator[PromiseBroken]:
        """Check states, each different one once; give those that fail."""
        disk = Disk(self.recording)
        seen: set[bytes] = set()
        for count, state in enumerate(sorted(wanted, key=lambda each: each.cut), start=1):
            disk.advance(state.cut)
            tree = disk.state(state)
            known = _fingerprint(tree, len(disk.said))
            if known not in seen:
                seen.add(known)
                problem = self._problem(tree, disk.said)
                if problem is not None:
                    yield PromiseBroken(state, disk.said, problem, f"{self.again} {state}")
            self.tally = Tally(count, len(seen))

    def _problem(self, tree: Tree, said: Sequence[str]) -> Exception | None:
        with tempfile.TemporaryDirectory(prefix="powercut-", dir=_scratch()) as scratch:
            folder = Path(scratch) / "disk"
            tree.write(folder)
            try:
                self.checker(folder, said)
            except Exception as problem:
                return problem
        return None


def run(recording: Recording, checker: Checker, wanted: Iterable[State], *, again: str = "") -> Tally:
    """Check states; raise `PromiseBroken` for the first that fails."""
    campaign = Campaign(recording, checker, again)
    for broken in campaign.broken(wanted):
        raise broken
    return campaign.tally


def all_states(recording: Recording, *, seed: int, rounds: int = 1) -> list[State]:
    """Give every cut with every loss."""
    return list(states(len(Disk(recording).moments), seed=seed, rounds=rounds))


def sample(recording: Recording, *, seed: int, size: int, first_cut: int = 0) -> list[State]:
    """Give some states: of each promise the one in which it is new and nothing is kept, then a random choice.

    Cuts before `first_cut` are left out.
    """
    disk = Disk(recording)
    said = {operation.begin for operation in recording.operations if isinstance(operation.doing, Said)}
    fresh = [State(cut, Loss.NOTHING, seed) for cut, moment in enumerate(disk.moments, start=1) if moment in said]
    known = set(fresh)
    later = (state for state in states(len(disk.moments), seed=seed) if state.cut >= first_cut)
    rest = [state for state in later if state not in known]
    return fresh + random.Random(seed).sample(rest, max(0, min(len(rest), size - len(fresh))))


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
