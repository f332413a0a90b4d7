"""Judges what a death left: every acknowledged recipient is somewhere, and nothing lies about that nobody answers for.

A copy of the spool is opened, so that the next life meets what the death left and not what we tidied.
"""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from forwarder.model.letter import Kind, Letter, Query, State
from forwarder.ports import Damaged
from tests.fakes import RecordingLog
from tests.kill.journal import Kept, Ledger, Place, Told, told_by
from tests.spool.material import names, octets, opened


class Findings:
    """What the spool holds, by content and mailbox."""

    def __init__(self) -> None:
        self.letters: dict[str, Letter] = {}
        self.digests: dict[str, str] = {}
        self.states: dict[Place, State] = {}
        self.told: list[Told] = []
        self.reports: dict[tuple[str, str], set[str]] = {}
        self.problems: list[str] = []

    def add(self, letter: Letter) -> None:
        """Learn of a letter whose content is sound."""
        content = octets(letter.message.content)
        id, digest = letter.message.id, hashlib.sha256(content).hexdigest()
        self.letters[id], self.digests[id] = letter, digest
        for delivery, progress in zip(letter.message.deliveries, letter.progress, strict=True):
            if not progress.state.final:
                self.states[digest, str(delivery.destination.address)] = progress.state
        if letter.kind is not Kind.MAIL:
            told = told_by(content)
            self.told.append(told)
            for failed in told.failed:
                self.reports.setdefault(failed, set()).add(digest)


def look(folder: Path) -> Findings:
    """Give what the spool in `folder` holds, after its program has ended."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        copy = Path(name)
        if (folder / "spool").exists():
            shutil.copytree(folder / "spool", copy / "spool", copy_function=_copy)
        return asyncio.run(_look(copy))


def judge(found: Findings, ledger: Ledger) -> list[str]:
    """Give what is wrong."""
    problems = [*found.problems, *_lost(ledger, found), *_strange(ledger, found), *_twice(ledger, found)]
    return [*problems, *_untold(ledger, found)]


def _copy(source: str, target: str) -> None:
    """Message files never change: they are linked. The rest is copied."""
    if Path(source).parent.name == "messages":
        os.link(source, target)
    else:
        shutil.copy2(source, target)


async def _look(folder: Path) -> Findings:
    found, log = Findings(), RecordingLog()
    spool = await opened(folder, log)
    try:
        for letter in await spool.find(Query()):
            try:
                whole = await spool.fetch(letter.message.id)
                assert whole is not None
                found.add(whole)
            except Damaged as error:
                found.problems.append(f"damaged: {error}")
        left = names(folder, "messages") ^ set(found.letters) | names(folder, "incoming") | names(folder, "quarantine")
        found.problems += [f"left over or missing: {name}" for name in sorted(left)]
        found.problems += [f"alert: {alert}" for alert in log.named("alert")]
    finally:
        await spool.close()
    return found


def _lost(ledger: Ledger, found: Findings) -> Iterator[str]:
    """Promise 1: whoever was acknowledged is delivered, in the spool, bounced, or was the operator's to end."""
    failed = {one for told in (*ledger.told, *found.told) for one in told.failed}
    for id, kept in ledger.kept.items():
        if kept.acknowledged:
            for alias, mailbox in zip(kept.aliases, kept.mailboxes, strict=True):
                if not _where(ledger, found, id, kept, mailbox) and (kept.token, alias) not in failed:
                    yield f"lost: {id} to {mailbox}"


def _where(ledger: Ledger, found: Findings, id: str, kept: Kept, mailbox: str) -> bool:
    places = [(kept.digest, mailbox)]
    if to := ledger.resent.get(id):
        places.append((kept.digest, to))
    return "delete" in ledger.done_to.get(id, ()) or any(one in ledger.took or one in found.states for one in places)


def _strange(ledger: Ledger, found: Findings) -> Iterator[str]:
    """Nothing is there that nobody gave, and nothing with another content."""
    given = {kept.digest for kept in ledger.kept.values()}
    for id, letter in found.letters.items():
        kept = ledger.kept.get(id)
        if kept is not None and kept.refused:
            yield f"refused, and in the spool: {id}"
        if letter.kind is Kind.MAIL and found.digests[id] not in ({kept.digest} if kept else given):
            yield f"another content: {id}"


def _twice(ledger: Ledger, found: Findings) -> Iterator[str]:
    """Second copies only where a death came between a hop's 250 and its being recorded (RFC 1047)."""
    for place, count in ledger.took.items():
        if count > 1 + ledger.windows[place]:
            yield f"{count} copies, {ledger.windows[place]} deaths that could excuse them: {place}"
        if place in found.states and not ledger.windows[place]:
            yield f"delivered and recorded, and {found.states[place].value} as well: {place}"
    resent = {kept.token for id, kept in ledger.kept.items() if id in ledger.resent}
    reports = Counter({one: len(some | found.reports.get(one, set())) for one, some in ledger.reports.items()})
    for (token, alias), count in reports.items():
        if count > 1 and token not in resent:
            yield f"{count} DSNs tell of {alias}"


def _untold(ledger: Ledger, found: Findings) -> Iterator[str]:
    """What is held is told, will be told, or was held by the operator."""
    told = {id for one in (*ledger.told, *found.told) for id in one.held}
    counted = any(one.more for one in (*ledger.told, *found.told))  # a notice that lists too many counts the rest
    for id, letter in found.letters.items():
        for progress in letter.progress:
            silent = progress.state is State.HELD and not progress.untold and letter.kind is not Kind.NOTICE
            if silent and id not in told and not counted and not ledger.done_to.get(id, set()) & {"hold", "bounce"}:
                yield f"held, and nobody knows: {id}"
