"""Row 53: kill -9 at random points while letters are stored: what was acknowledged is there, nothing is left over."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path

from forwarder.model.letter import Query, State
from tests.fakes import RecordingLog
from tests.spool.material import ALPHABET, names, octets, opened
from tests.spool.storing_child import body

ROUNDS = 24


def test_kill_at_random(tmp_path: Path) -> None:
    """The child is killed when it has said some number of things; each round goes on with the same folder."""
    dice = random.Random(20261122)
    stored: set[str] = set()
    ended: set[str] = set()
    for round in range(ROUNDS):
        for line in killed(tmp_path, round * 1_000_000, dice.randrange(40)):
            word, _, id = line.partition(" ")
            (stored if word == "stored" else ended).add(id)
        asyncio.run(check(tmp_path, stored, ended))
    assert len(stored) > ROUNDS


def killed(folder: Path, first: int, after: int) -> list[str]:
    """Start the child, kill it when it has said `after` lines, and give all that it said."""
    command = [sys.executable, "-m", "tests.spool.storing_child", str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(after)]
        child.kill()
        lines += child.stdout.readlines()
    return [line.strip() for line in lines if line.endswith("\n")]


async def check(folder: Path, stored: set[str], ended: set[str]) -> None:
    log = RecordingLog()
    spool = await opened(folder, log)
    found = {one.message.id: one for one in await spool.find(Query())}
    assert stored - ended <= set(found) | may_have_ended(stored - ended)
    assert not ended & set(found)
    for id in found:
        kept = await spool.fetch(id)
        assert kept is not None
        assert octets(kept.message.content) == body(id)
        assert kept.progress[1].state is State.QUEUED
    assert names(folder, "messages") == set(found)
    assert names(folder, "incoming") == names(folder, "quarantine") == set()
    assert log.named("alert") == []
    await spool.close()
    ended |= stored - set(found)


def may_have_ended(ids: set[str]) -> set[str]:
    """Odd letters end by themselves: the kill may have come between that commit and its line."""
    return {id for id in ids if ALPHABET.index(id[-1]) % 2}
