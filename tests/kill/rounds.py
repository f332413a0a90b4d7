"""Rounds of the small program: forked from a warm process, killed, judged; every campaign drained.

A campaign is some lives in one folder; the last one is calm: it is let finish, and then nothing may be left but what is
held. A seed determines every campaign but for the order of threads, and for the moments of the kills from outside.
"""

import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from forwarder.model.letter import State
from tests.kill import journal, program
from tests.kill.audit import judge, look
from tests.kill.doom import IMMORTAL, Doom
from tests.kill.journal import Journal, Ledger
from tests.kill.program import Life

LIVES = 20  # in a folder
_FROM_OUTSIDE = 0.25  # the share of lives that are killed at a random moment
_LATEST = 0.25  # seconds after the start
# At what the others die: those operations that lead from one state of a letter to the next, or any.
_STATES = ("", "", "create incoming", "write", "sync", "rename messages", "begin", "commit", "unlink messages")
_MOST_OPERATIONS = 1500
_MOST_OF_ONE = 60
_CALM = 60.0  # seconds in which the last life must come to an end


@dataclass(slots=True)
class Tally:
    """What many rounds came to."""

    rounds: int = 0
    finished: int = 0  # ended by themselves before their death was due
    acknowledged: int = 0
    duplicates: int = 0
    most_open: int = 0
    states: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def told(self) -> str:
        """Say how it stands."""
        return (
            f"{self.rounds} rounds, {self.finished} ended in peace, {self.acknowledged} recipients acknowledged, "
            f"{self.duplicates} second copies, {self.most_open} at most in flight at a death, "
            f"{len(self.problems)} problems"
        )

    def add(self, ledger: Ledger) -> None:
        """Add a campaign."""
        self.acknowledged += sum(len(kept.mailboxes) for kept in ledger.kept.values() if kept.acknowledged)
        self.duplicates += ledger.duplicates
        self.most_open = max(self.most_open, ledger.most_open)
        self.states += ledger.states


def campaigns(rounds: int, seed: int) -> Iterator[Tally]:
    """Run as many rounds as wanted; give the tally so far after each campaign."""
    tally = Tally()
    for first in range(0, rounds, LIVES):
        _campaign(tally, seed * 1_000_003 + first, min(LIVES, rounds - first))
        yield tally


def _campaign(tally: Tally, seed: int, lives: int) -> None:
    dice, ledger = random.Random(seed), Ledger()
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder = Path(name)
        folder.chmod(0o700)
        problems: list[str] = []
        for number in range(lives):
            killed = _live(folder, dice, Life(number, dice.getrandbits(60), _doom(dice)))
            tally.finished += not killed
            tally.rounds += 1
            ledger = Ledger().read(journal.read(folder / "journal"))
            problems += judge(look(folder), ledger)
            if problems:
                break
        else:
            problems += _calm(folder, Life(lives, dice.getrandbits(60), calm=True))
        tally.problems += [f"seed {seed}, life {number}: {problem}" for problem in problems]
    tally.add(ledger)


def _doom(dice: random.Random) -> Doom:
    if dice.random() < _FROM_OUTSIDE:
        return IMMORTAL
    what = dice.choice(_STATES)
    most = _MOST_OPERATIONS if not what else _MOST_OF_ONE
    return Doom(int(most ** dice.random()) - 1, after=dice.random() < 0.5, what=what)


def _live(folder: Path, dice: random.Random, life: Life) -> bool:
    """Let the program live until it is killed; say whether it was."""
    child = _fork(folder, life)
    if life.doom is IMMORTAL:
        time.sleep(dice.random() * _LATEST)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the program ended with {status} in {life}")
    note = Journal(folder / "journal")
    note.say("killed")
    note.close()
    return status != 0


def _calm(folder: Path, life: Life) -> list[str]:
    """Let everything be delivered that can be; only what is held may be left."""
    child = _fork(folder, life)
    deadline = time.monotonic() + _CALM
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["the queue does not become empty"]
        time.sleep(0.02)
    if status := os.waitstatus_to_exitcode(ended[1]):
        return [f"the last life ended with {status}"]
    found = look(folder)
    left = [f"still queued: {place}" for place, state in found.states.items() if state is State.QUEUED]
    return [*judge(found, Ledger().read(journal.read(folder / "journal"))), *left]


def _fork(folder: Path, life: Life) -> int:
    """Start a life in a process that has loaded everything already."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        program.main(folder, life)
        status = 0
    except BaseException:  # noqa: BLE001,RUF100 - the child must never come back into the caller's code
        traceback.print_exc()
    finally:
        os._exit(status)
