"""Rule files from disk: a file, or a folder of `*.rules` in the order of their names.

Gives texts for `rules.parse`, named by their paths. Raises `RuleFilesError` with one problem a line, each beginning
with the path. A folder without rules is an error, not an empty set: a mount that is missing must not drop every
address. So are files over 64 MB, files that are not UTF-8 (with the line), and files that anybody on the machine may
write to, because whoever can do that can read all mail. Names beginning with a dot are left out (editors keep theirs
there), and sub-folders are not looked into.
"""

import stat
from collections.abc import Sequence
from pathlib import Path

MAX_SIZE = 64 << 20  # octets of all files together
SUFFIX = ".rules"


class RuleFilesError(Exception):
    """The files cannot be read. `problems` has one line for each, never empty."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


class _UnfitError(Exception):
    """One file cannot be used; the text follows its path."""


def read_rules(path: Path) -> tuple[tuple[str, str], ...]:
    """Read a file or folder into (name, text) pairs; raise `RuleFilesError`."""
    texts: list[tuple[str, str]] = []
    problems: list[str] = []
    room = MAX_SIZE
    for file in _files(path):
        try:
            octets = _read(file, room)
            room -= len(octets)
            texts.append((str(file), _decode(octets)))
        except _UnfitError as unfit:
            problems.append(f"{file}{unfit}")
    if problems:
        raise RuleFilesError(problems)
    return tuple(texts)


def _files(path: Path) -> list[Path]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            return [path]
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise RuleFilesError([f"{path}: anybody may add files to this folder (chmod o-w)"])
        files = sorted(file for file in path.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
    except OSError as error:
        raise RuleFilesError([f"{path}: {_said(error)}"]) from None
    if not files:
        raise RuleFilesError([f"{path}: there is no file *{SUFFIX} in this folder"])
    return files


def _read(file: Path, room: int) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would keep us waiting
            raise _UnfitError(": is no regular file")
        if status.st_mode & stat.S_IWOTH:
            raise _UnfitError(": anybody may write to this file (chmod o-w)")
        with file.open("rb") as opened:
            octets = opened.read(room + 1)
    except OSError as error:
        raise _UnfitError(f": {_said(error)}") from None
    if len(octets) > room:
        raise _UnfitError(f": the rules are larger than {MAX_SIZE >> 20} MB")
    return octets


def _decode(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        column = len(octets[octets.rfind(b"\n", 0, error.start) + 1 : error.start].decode()) + 1
        raise _UnfitError(f":{line}:{column}: not UTF-8 from here on") from None


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
