"""What processes cost: their CPU and memory as the kernel counts them in /proc, and how to end with their parent.

Contract: a process group is one system under measurement; its leader is the one that was started. Linux only.
"""

import ctypes
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

_TIMES = (11, 12, 13, 14)  # utime stime cutime cstime of proc(5), counted from the state
_TICKS = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None)


def cpu(group: int) -> dict[int, float]:
    """Give the seconds of CPU that each process of a group has used, those of its dead children included."""
    return {pid: sum(int(fields[index]) for index in _TIMES) / _TICKS for pid, fields in _stat_of(group).items()}


def memory(group: int, name: str) -> int:
    """Give VmRSS or VmHWM of a process group in kB."""
    total = 0
    for pid in _stat_of(group):
        if found := re.search(rf"^{name}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE):
            total += int(found[1])
    return total


def forget_peaks(group: int) -> None:
    """Let VmHWM start anew in all processes of a group (proc(5))."""
    for pid in _stat_of(group):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _stat_of(group: int) -> dict[int, list[str]]:
    """Give the fields of /proc/PID/stat from the third on, for every process of the group."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group:
            found[int(path.parent.name)] = fields
    return found


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Give what a child is to call before it becomes another program: it gets the signal when the parent has gone."""
    return lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, number)
