"""Faults from outside: strace attached to a running program makes it die, or its calls fail, at the N-th system call.

So the program needs no hooks for tests. strace counts for each thread of the program by itself.
"""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab.maildir import wait_for
from tests.powercut import strace

missing = strace.missing


def at(call: str, fault: str, when: str = "1") -> str:
    """Name a fault: `at("fsync", "signal=KILL")`, `at("openat", "error=ENOSPC", "1+")`."""
    return f"{call}:{fault}:when={when}"


def words(faults: Sequence[str]) -> list[str]:
    """Give the beginning of a command line: strace with faults."""
    injections = [word for fault in faults for word in ("-e", f"inject={fault}")]
    calls = ",".join(sorted({fault.partition(":")[0] for fault in faults}))
    return ["strace", "-f", "-e", f"trace={calls}", *injections, "-o", "/dev/null"]


@contextlib.contextmanager
def attached(processes: Sequence[int], *faults: str) -> Iterator[None]:
    """Inject faults into all threads of processes until the block ends or they do."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        with said.open("wb") as output:
            whom = [word for process in processes for word in ("-p", str(process))]
            command = [*words(faults), *whom]
            tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output)
        try:
            wait_for(lambda: _all_attached(said, processes), what="strace does not attach")
            yield
        finally:
            _end(tracer, processes)


def _end(tracer: "subprocess.Popen[bytes]", processes: Sequence[int]) -> None:
    """Let go of programs that live; one that has died can only be waited for when its tracer is gone."""
    try:
        if not all(map(dead, processes)):
            # strace lets go by waiting for each program, and would wait for good for one whose death it has not seen.
            wait_for(lambda: not any(map(_unseen, processes)), what="strace does not see a death")
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
    except subprocess.TimeoutExpired:
        pass
    finally:
        tracer.kill()
        tracer.wait(10)


def dead(process: int) -> bool:
    """Whether a process has ended, though nobody may have taken note of it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _unseen(process: int) -> bool:
    """Whether a process has ended and its tracer has still to take note of it."""
    try:
        return dead(process) and "TracerPid:\t0\n" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _all_attached(said: Path, processes: Sequence[int]) -> bool:
    text = said.read_text()
    return all(f"Process {process} attached" in text for process in processes)
