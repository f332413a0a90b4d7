"""Row 53: 245 deaths of the small program at every kind of operation and at random; every one is judged.

With the 26 of `test_states`, the 8 of `test_load` and the 24 of tests/spool/test_kill they are 303 in each run of CI
(277 where there is no strace). Longer campaigns: `python -m tests.kill`.
"""

import re
import subprocess
import sys
from typing import Any

import pytest

from tests.kill.audit import Findings, judge
from tests.kill.journal import Ledger

ROUNDS = 245
SEED = 20261123
_LEADS_ON = (
    "create incoming",
    "write",
    "sync",
    "rename messages",
    "begin",
    "commit",
    "unlink messages",
)


@pytest.mark.timeout(400)
def test_deaths_of_the_small_program() -> None:
    """In a process of its own: it forks, and nothing else must run in it."""
    words = [sys.executable, "-m", "tests.kill", "small", "--rounds", str(ROUNDS), "--seed", str(SEED)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    died = re.findall(r"^died (.+): \d+$", done.stdout, re.MULTILINE)
    assert {f"{when} {what}" for when in ("before", "after") for what in _LEADS_ON} <= set(died)


def test_the_judge_sees_what_is_lost_and_what_is_there_twice() -> None:
    kept: list[list[Any]] = [
        ["keep", "A" * 16, "t", "d1", ["x@forward.test"], ["x@good.test"]],
        ["acknowledged", "A" * 16],
    ]
    taken: list[Any] = ["took", "d1", ["x@good.test"], [], [], False]
    recorded: list[Any] = ["recorded", [["d1", "x@good.test"]]]
    assert judge(Findings(), Ledger().read(kept)) == [f"lost: {'A' * 16} to x@good.test"]
    assert judge(Findings(), Ledger().read([*kept, taken, recorded])) == []
    assert judge(Findings(), Ledger().read([*kept, taken, ["killed"], taken])) == []
    twice = judge(Findings(), Ledger().read([*kept, taken, recorded, ["killed"], taken]))
    assert len(twice) == 1
    assert "2 copies, 0 deaths" in twice[0]
