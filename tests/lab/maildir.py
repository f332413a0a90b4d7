"""What a mail server delivered: a Maildir, and waiting for things to happen."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(question: Callable[[], T], timeout: float = 25, what: str = "") -> T:
    """Ask until the answer is true; give it. The time-out only bounds a failing test."""
    deadline = time.monotonic() + timeout
    while not (answer := question()):
        assert time.monotonic() < deadline, what or f"still {answer!r} after {timeout} s"
        time.sleep(0.05)
    return answer


class Maildir:
    """A folder with new messages in `new/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def messages(self) -> list[bytes]:
        """Give the messages as they lie there (line ends are LF), oldest first."""
        files = sorted((self.folder / "new").glob("*"), key=lambda file: file.stat().st_mtime_ns)
        return [file.read_bytes() for file in files]

    def wait(self, count: int = 1, timeout: float = 25) -> list[bytes]:
        """Wait until that many messages are there; give all."""
        return wait_for(
            lambda: found if len(found := self.messages()) >= count else [],
            timeout,
            f"{len(self.messages())} of {count} messages in {self.folder}",
        )
