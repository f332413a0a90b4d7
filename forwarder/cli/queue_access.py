"""Where `forwarder queue` gets its answers: from the running gateway, or from the spool itself while none runs.

`asking` gives a function that answers requests as `delivery.queue_desk` describes them. The control socket comes first:
only where nobody listens is the spool opened, and its lock makes sure that there is one owner. A socket behind which
nobody answers is an error (`Unreachable`), never a reason to open the spool beside a gateway.

What root does offline is done as the user whom the spool belongs to: SQLite's files and ours are made anew at any
time, and the gateway could not open root's. That user may not be able to read the program: nothing must be imported
for the first time while it is in force, so it is so only during the requests, and `queue_offline` loads what they need.
"""

import asyncio
import os
import pwd
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forwarder.config import Config
from forwarder.ops.control import ControlError, call

Ask = Callable[[Mapping[str, object]], Mapping[str, object]]

_PATIENCE = 300.0  # seconds for one answer: a portion of bounces reads and writes as many messages


class Unreachable(Exception):  # noqa: N818 - it says what is the matter
    """Nobody can answer; the text has a line for each reason."""


@contextmanager
def asking(config: Config) -> Iterator[Ask]:
    """Give what answers requests; raise `Unreachable`, also later from the answers."""
    path = config.run_dir / "control.sock"
    if _listens(path):
        yield lambda request: _asked(path, request)
        return
    folder = config.state_dir / "spool"
    try:
        status = folder.lstat()
    except FileNotFoundError:
        yield _nothing
        return
    except OSError as error:
        raise Unreachable(f"{folder}: {error.strerror}: run this as root or as the user of the gateway") from None
    if not stat.S_ISDIR(status.st_mode):
        raise Unreachable(f"{folder}: expected a folder")
    with _opened(config, _User.of(folder, status)) as ask:
        yield ask


def _listens(path: Path) -> bool:
    """Whether somebody may be behind the socket; only a plain no is one."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:
        return True
    return True


def _asked(path: Path, request: Mapping[str, object]) -> Mapping[str, object]:
    try:
        return call(path, "queue", timeout=_PATIENCE, **request)
    except ControlError as error:
        raise Unreachable(str(error)) from None


def _nothing(request: Mapping[str, object]) -> Mapping[str, object]:
    """Answer where no spool was ever made; every command begins with `select` or, for one message, `show`."""
    ids = request.get("ids", [])
    if request.get("verb") == "select":
        return {"ok": True, "ids": [], "unknown": ids}
    return {"ok": False, "status": 1, "problems": ["no such message: the queue is empty"]}


@contextmanager
def _opened(config: Config, owner: "_User") -> Iterator[Ask]:
    from forwarder.cli.queue_offline import Unopened, offline_desk

    with asyncio.Runner() as runner:
        opening = offline_desk(config)
        try:
            with owner.in_force():
                desk = runner.run(opening.__aenter__())
        except Unopened as error:
            raise Unreachable(str(error)) from None

        def ask(request: Mapping[str, object]) -> Mapping[str, object]:
            with owner.in_force():
                return runner.run(desk.handle(request))

        try:
            yield ask
        finally:
            with owner.in_force():
                runner.run(opening.__aexit__(None, None, None))


@dataclass(frozen=True, slots=True)
class _User:
    """Whom the files of a spool belong to."""

    user: int
    group: int

    @classmethod
    def of(cls, folder: Path, status: os.stat_result) -> "_User":
        """Give the owner of the folder; raise `Unreachable` for who is neither that nor root."""
        if os.geteuid() not in (0, status.st_uid):
            owner = _name(status.st_uid)
            raise Unreachable(f"{folder} belongs to {owner}: run this as root, or: sudo -u {owner} forwarder queue ...")
        return cls(status.st_uid, status.st_gid)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Be this user as far as files go."""
        user, group = os.geteuid(), os.getegid()
        if user == self.user:
            yield
            return
        os.setegid(self.group)
        os.seteuid(self.user)
        try:
            yield
        finally:
            os.seteuid(user)
            os.setegid(group)


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
