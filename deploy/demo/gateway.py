"""Runs `forwarder serve` as a child of this process, and stops it again.

    with listening_socket("127.0.0.1", 2525) as listening:
        async with gateway(Path("forwarder.toml"), listening, lines.append) as child: ...

It gets its socket from us, as it would from systemd, so that no other program can take the port first. It lives no
longer than we do: it is stopped at the end of the block, and the kernel kills it should we be killed before that. It is
up when it says so by systemd's protocol (READY=1). Every line that it prints is handed to `hear`.

Can fail: `GatewayError` with the last lines of its log, when it does not come up.

Left out on purpose: restarting it. Linux only.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

_READY_WITHIN = 30.0  # seconds; a slow disk and a cold cache included
_STOP_WITHIN = 15.0
_BACKLOG = 1024
_PR_SET_PDEATHSIG = 1  # prctl(2)

# sd_listen_fds(3): the socket is descriptor 3, and the variables name the process that is to take it.
_INHERIT = """\
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3)
if given != 3:
    os.close(given)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""

Hear = Callable[[str], None]


class GatewayError(Exception):
    """The gateway did not come up; the text says what it said."""


def listening_socket(host: str, preferred: int = 0) -> socket.socket:
    """Listen on that port, or on a free one where it is taken (or 0)."""
    try:
        return socket.create_server((host, preferred), backlog=_BACKLOG)
    except OSError:
        return socket.create_server((host, 0), backlog=_BACKLOG)


@asynccontextmanager
async def gateway(
    config: Path, listening: socket.socket, hear: Hear, log: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a gateway for as long as the block lasts; with `log` it writes to that file and nothing is heard."""
    last: deque[str] = deque(maxlen=20)

    def listen(line: str) -> None:
        last.append(line)
        hear(line)

    with _notifications(config.parent / "ready.sock") as ready:
        environ = {**os.environ, "FORWARDER_CONFIG": str(config), "NOTIFY_SOCKET": ready.getsockname()}
        with log.open("ab") if log else contextlib.nullcontext(asyncio.subprocess.PIPE) as output:
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-ISc", _INHERIT, str(listening.fileno()), "-m", "forwarder", "serve"),
                env=environ,
                pass_fds=[listening.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us to handle
                preexec_fn=_die_with_parent,
            )
        reading = asyncio.create_task(_read(child, listen))
        try:
            await _come_up(child, ready, reading, last)
            yield child
        finally:
            await _stop(child)
            await reading


async def _come_up(
    child: asyncio.subprocess.Process, ready: socket.socket, reading: asyncio.Task[None], last: deque[str]
) -> None:
    said = asyncio.create_task(_said_ready(ready))
    ended = asyncio.create_task(child.wait())
    done, _ = await asyncio.wait({said, ended}, timeout=_READY_WITHIN, return_when=asyncio.FIRST_COMPLETED)
    for task in (said, ended):
        task.cancel()
    await asyncio.gather(said, ended, return_exceptions=True)
    if said in done:
        return
    if ended in done:
        await reading
        what = f"The gateway ended with status {child.returncode}."
    else:
        what = f"The gateway was not ready within {_READY_WITHIN:.0f} seconds."
    raise GatewayError("\n".join([what, *last]))


async def _said_ready(ready: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while b"READY=1" not in (await loop.sock_recv(ready, 4096)).split(b"\n"):
        pass


async def _read(child: asyncio.subprocess.Process, hear: Hear) -> None:
    while child.stdout and (line := await child.stdout.readline()):
        hear(line.decode("utf-8", "backslashreplace").rstrip("\n"))


async def _stop(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), _STOP_WITHIN)
    with contextlib.suppress(ProcessLookupError):  # its workers too; normally nobody is left
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


@contextlib.contextmanager
def _notifications(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.setblocking(False)
        path.unlink(missing_ok=True)
        ready.bind(str(path))
        try:
            yield ready
        finally:
            path.unlink(missing_ok=True)


_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
