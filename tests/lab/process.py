"""A server process of the lab: started in a world, in a session of its own, and ended with all its children.

Whoever ends one knows that no process of its group holds a socket any more: a successor finds the address free.
"""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.maildir import wait_for
from tests.lab.world import World

_PATIENCE = 15.0  # seconds to end after SIGTERM, and to be gone after SIGKILL


class Process:
    """Base of the servers. `output` has what the process wrote to its standard output and error."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.output = folder / "output"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)

    def spawn(
        self, words: Sequence[str], env: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        """Start the program in the world."""
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                self.world.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                pass_fds=pass_fds,
                cwd=self.world.folder,
                start_new_session=True,
            )
        return self.process

    def listening(self, port: int, address: str) -> bool:
        """Whether the address answers; fails if the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.output.read_text(errors="replace")
        with self.world.entered():
            probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        with probe:
            probe.settimeout(2)
            return probe.connect_ex((address, port)) == 0

    def end(self) -> int:
        """Send SIGTERM, wait, and leave no child behind; give the exit status."""
        process, self.process = self.process, None
        assert process is not None
        process.terminate()
        try:
            status = process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            status = -signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session's group: what it started and left
        process.wait(_PATIENCE)
        wait_gone(process.pid)
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.end()

    def start(self) -> None:
        """Start, and wait until it serves."""
        raise NotImplementedError

    def wait_listening(self, port: int, address: str) -> None:
        """Wait until the address answers."""
        wait_for(lambda: self.listening(port, address), what=f"nothing listens on {address}:{port}")


def wait_gone(group: int) -> None:
    """Wait until no process of a group runs: its first one is seen to end before what it started."""
    wait_for(lambda: not _living(group), _PATIENCE, f"of process group {group} somebody lives on")


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not.

    Its first thread may have ended before the others, which hold its sockets still.
    """
    return any(_runs(thread) for thread in Path(f"/proc/{pid}/task").glob("*"))


def _living(group: int) -> list[int]:
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _group(pid) == group and lives(pid)]


def _group(pid: int) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return os.getpgid(pid)
    return None


def _runs(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
