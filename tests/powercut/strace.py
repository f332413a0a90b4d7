"""Runs a program under strace, and reads what it wrote: every call with the moments of its entry and its return.

Moments are whole numbers that grow with the lines of the trace; no two are the same. Strings are traced in hex, so
octets are exact. `read` is traced raw: how much was read matters for file offsets, what was read does not.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

NEVER = 1 << 62  # the moment of a return that did not come
_LONGEST = 64 * 1024 * 1024  # octets of one write
CALLS = (
    *("open", "openat", "creat", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "lseek", "read", "readv"),
    *("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg"),
    *("ftruncate", "truncate", "fallocate", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
    *("chdir", "fchdir", "clone", "clone3", "fork", "vfork", "execve", "mmap"),
    *("symlink", "symlinkat", "sendfile", "copy_file_range", "splice", "vmsplice", "io_uring_setup", "io_submit"),
    *("openat2", "sync", "syncfs"),
)
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_RESULT = re.compile(r"(-?\d+|0x[0-9a-f]+)\b")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(slots=True)
class Call:
    """One system call. `result` is None where it never returned, or does not say; errors are negative."""

    thread: int
    name: str
    begin: int
    text: str
    end: int = NEVER
    result: int | None = None
    arguments: list[str] = field(default_factory=list)

    @property
    def succeeded(self) -> bool:
        return self.result is not None and self.result >= 0


@functools.cache
def missing() -> str:
    """Say why nothing can be traced here; "" if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with tempfile.NamedTemporaryFile() as trace:
        command = [*_command(Path(trace.name)), "true"]
        tried = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if tried.returncode == 0 else f"strace cannot trace here: {tried.stderr.strip()[:200]}"


def run(command: Sequence[str], trace: Path, *, timeout: float) -> str:
    """Run a program, its threads and children; give its standard output. Raises `RuntimeError` if it fails."""
    whole = [*_command(trace), *command]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _command(trace: Path) -> list[str]:
    options = ["-f", "-qq", "-xx", "-e", "signal=none", "-e", "raw=read,readv", "-s", str(_LONGEST)]
    # A "?" lets strace pass over calls that this processor does not have.
    return ["strace", *options, "-e", "trace=" + ",".join(f"?{name}" for name in CALLS), "-o", str(trace), "--"]


def calls(lines: Iterable[str]) -> Iterator[tuple[int, Call]]:
    """Give each call at the moment of its entry (`end` not set yet) and again at that of its return."""
    open_calls: dict[int, Call] = {}
    for number, line in enumerate(lines):
        matched = _LINE.match(line.rstrip("\n"))
        if matched is None:
            continue  # an exit or a signal
        thread, resumed, entered, rest = int(matched[1]), matched[2], matched[3], matched[4]
        unfinished = rest.endswith(_UNFINISHED)
        text = rest.removesuffix(_UNFINISHED)
        if resumed:
            call = open_calls.pop(thread)
            assert call.name == resumed, line
            call.text += text
        else:
            call = Call(thread, entered, 2 * number, text)
            call.arguments = _split(text)
            yield call.begin, call
        if unfinished:
            open_calls[thread] = call
        else:
            _finish(call, 2 * number + 1)
            yield call.end, call


def _finish(call: Call, moment: int) -> None:
    body, equals, result = call.text.rpartition(" = ")
    call.arguments = _split(body.rstrip().removesuffix(")") if equals else call.text)
    matched = _RESULT.match(result)
    if matched:
        call.end, call.result = moment, int(matched[1], 0)


def _split(text: str) -> list[str]:
    """Cut arguments apart at the commas that stand outside all brackets. Strings are hex and so have neither."""
    found: list[str] = []
    depth = start = 0
    for mark in re.finditer(r"[][(){},]", text):
        character = mark[0]
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth == 0:
            found.append(text[start : mark.start()].strip())
            start = mark.end()
    last = text[start:].strip()
    return [*found, last] if last else found


def octets(argument: str) -> bytes:
    """Give what a traced string, or all strings of an iovec, hold; raise `ValueError` if strace cut one short."""
    if '"...' in argument:
        raise ValueError("strace shortened a string")
    return b"".join(bytes.fromhex(found[1].replace("\\x", "")) for found in _STRING.finditer(argument))


def number(argument: str) -> int:
    """Read a number as strace writes it; descriptors may have a name behind them."""
    matched = _RESULT.match(argument)
    if matched is None:
        raise ValueError(f"no number: {argument[:80]}")
    return int(matched[1], 0)
