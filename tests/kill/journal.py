"""What a program that will be killed says before it dies: lines in a file that outlive it.

Each line is a JSON array that begins with a word; `Journal.say` has it with the kernel when it returns. `Ledger` reads
the lines in order and knows from them what was promised, what a next hop took, and what may have been taken twice.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Place = tuple[str, str]  # SHA-256 of a content, and the mailbox that it is for

_TOKEN = re.compile(r"^X-Token: (\S+)\r?$", re.MULTILINE)
_FAILED = re.compile(r"^Final-Recipient: rfc822; *(\S+)\r\n(?:[^\r\n]+\r\n)*?Action: failed\r$", re.MULTILINE)
_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{16}\b")


class Journal:
    """Appends lines to a file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def say(self, word: str, *more: object) -> None:
        """Write one line, in one call."""
        os.write(self._file, json.dumps([word, *more]).encode() + b"\n")

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)


def read(path: Path) -> list[list[Any]]:
    """Give all lines."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass(frozen=True, slots=True)
class Told:
    """What a letter of ours says: which aliases of which message have failed, or which letters are held."""

    failed: frozenset[tuple[str, str]]
    held: frozenset[str]
    more: bool = False


def told_by(octets: bytes) -> Told:
    """Read a DSN or a notice."""
    text = octets.decode("utf-8", "replace")
    token = _TOKEN.search(text)
    failed = frozenset((token[1], alias) for alias in _FAILED.findall(text)) if token else frozenset()
    return Told(failed, frozenset(_ID.findall(text)), "more" in text)


@dataclass(slots=True)
class Kept:
    """A letter that a sender gave; `digest` is that of its content."""

    token: str
    digest: str
    aliases: list[str]
    mailboxes: list[str]
    acknowledged: bool = False
    refused: bool = False


@dataclass(slots=True)
class Ledger:
    """What the lines come to."""

    kept: dict[str, Kept] = field(default_factory=dict)
    took: Counter[Place] = field(default_factory=Counter)
    windows: Counter[Place] = field(default_factory=Counter)  # deaths between a hop's 250 and its being recorded
    told: list[Told] = field(default_factory=list)
    reports: dict[tuple[str, str], set[str]] = field(default_factory=dict)  # digests of DSNs for a failed recipient
    done_to: dict[str, set[str]] = field(default_factory=dict)  # verbs of the operator, by id
    resent: dict[str, str] = field(default_factory=dict)  # where to
    states: Counter[str] = field(default_factory=Counter)  # at which operation the program died
    most_open: int = 0
    _open: set[Place] = field(default_factory=set)

    @property
    def duplicates(self) -> int:
        """How many copies too many were handed on."""
        return sum(count - 1 for count in self.took.values())

    def read(self, lines: Iterable[list[Any]]) -> "Ledger":
        """Learn from more lines."""
        for word, *more in lines:
            getattr(self, f"_{word}")(*more)
        return self

    def _keep(self, id: str, token: str, digest: str, aliases: list[str], mailboxes: list[str]) -> None:
        self.kept[id] = Kept(token, digest, aliases, mailboxes)

    def _acknowledged(self, id: str) -> None:
        self.kept[id].acknowledged = True

    def _refused(self, id: str) -> None:
        self.kept[id].refused = True

    def _took(self, digest: str, mailboxes: list[str], failed: list[list[str]], held: list[str], more: bool) -> None:
        for mailbox in mailboxes:
            self.took[digest, mailbox] += 1
            self._open.add((digest, mailbox))
        if failed or held:
            self.told.append(Told(frozenset((token, alias) for token, alias in failed), frozenset(held), more))
        for token, alias in failed:
            self.reports.setdefault((token, alias), set()).add(digest)

    def _recorded(self, places: list[list[str]]) -> None:
        self._open.difference_update((digest, mailbox) for digest, mailbox in places)

    def _operator(self, verb: str, id: str, to: str) -> None:
        self.done_to.setdefault(id, set()).add(verb)
        if to:
            self.resent[id] = to

    def _dies(self, at: str) -> None:
        self.states[at] += 1

    def _killed(self) -> None:
        self.windows.update(self._open)
        self.most_open = max(self.most_open, len(self._open))
        self._open.clear()
