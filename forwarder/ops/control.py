"""The control socket: how the `forwarder` command asks the running gateway to do something.

A request is one line of JSON, `{"command": "rules.reload", "force": false}`; the answer is one line too, an object
with `ok`. What goes wrong before a handler is reached (unknown command, too long, not JSON, not allowed) is answered
`{"ok": false, "error": "…"}`. Only root and the user of the gateway may ask: the socket is 0600, and the kernel says
who is connected.

`ControlServer.start` and `call` raise `ControlError`, whose text is a sentence for the administrator. A handler that
raises costs its caller an answer, not the gateway: the details go to `logging`.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

Handler = Callable[[Mapping[str, object]], Awaitable[Mapping[str, object]]]

MAX_REQUEST = 65_536  # octets
MAX_ANSWER = 64 << 20

_PATIENCE = 10.0  # seconds for a request to arrive
_MAX_PATH = 107  # octets in sockaddr_un

_log = logging.getLogger("forwarder.control")


class ControlError(Exception):
    """The gateway cannot be asked, or cannot be made to listen for questions."""


class ControlServer:
    """Answers commands on a Unix socket with the handlers of their names."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = handlers
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The socket that a dead gateway left is replaced; that of a live one raises `ControlError`."""
        _check_folder(self._path.parent)
        _check_place(self._path)
        listening = _bind(self._path)
        self._inode = self._path.lstat().st_ino
        self._server = await asyncio.start_unix_server(self._converse, sock=listening, limit=MAX_REQUEST)

    async def close(self) -> None:
        """Stop listening, give up what is being answered, and remove the socket, unless another took its place."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(FileNotFoundError):
            if self._path.lstat().st_ino == self._inode:
                self._path.unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._exchange(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader, writer)
            writer.write(json.dumps(answer, default=str).encode() + b"\n")
            async with asyncio.timeout(_PATIENCE):
                await writer.drain()
        except (OSError, TimeoutError):
            pass  # whoever asked has gone
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Mapping[str, object]:
        try:
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
        except ValueError:  # how asyncio says that a line is longer than the limit
            return _error(f"a request has at most {MAX_REQUEST} octets")
        if _uid(writer.get_extra_info("socket")) not in (0, os.geteuid()):
            return _error("only root and the user of the gateway may ask")
        request = _parse(line)
        if request is None:
            return _error("a request is one line with a JSON object")
        handler = self._handlers.get(str(request.pop("command", "")))
        if handler is None:
            return _error("the gateway does not know this command; is it older than the program that asks?")
        try:
            return await handler(request)
        except Exception:  # one command must not take the gateway down; the log has the details
            _log.exception("a control command failed")
            return _error("the command failed; the log of the gateway says why")


def call(path: Path, command: str, *, timeout: float = 60.0, **arguments: object) -> dict[str, object]:
    """Ask the running gateway and give its answer; raise `ControlError`, also for an answer with `error`."""
    request = json.dumps({**arguments, "command": command}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(timeout)
            asking.connect(str(path))
            asking.sendall(request)
            answer = _parse(_read_line(asking))
    except (FileNotFoundError, ConnectionRefusedError):
        raise ControlError(
            f"the gateway is not running: nobody listens at {path}; start it with 'forwarder serve'"
        ) from None
    except PermissionError:
        raise ControlError(f"permission denied at {path}: run this as root or as the user of the gateway") from None
    except TimeoutError:
        raise ControlError(f"the gateway did not answer within {timeout:g} seconds") from None
    except OSError as error:
        raise ControlError(f"the gateway cannot be asked at {path}: {error.strerror or error}") from None
    if answer is None:
        raise ControlError("the gateway gave no answer; its log may say why")
    if "error" in answer:
        raise ControlError(str(answer["error"]))
    return answer


def _read_line(asking: socket.socket) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size < MAX_ANSWER and not (pieces and pieces[-1].endswith(b"\n")):
        piece = asking.recv(65_536)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _parse(line: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _error(text: str) -> dict[str, object]:
    return {"ok": False, "error": text}


def _uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    uid: int = struct.unpack("3i", credentials)[1]
    return uid


def _check_folder(folder: Path) -> None:
    """Make the folder where it is missing; whoever else can write there could pose as the gateway."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ControlError(f"{folder}: the folder of the control socket: {error.strerror}") from None
    if status.st_uid not in (0, os.geteuid()) or (status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX):
        raise ControlError(f"{folder}: the folder of the control socket must be writable by nobody but us or root")


def _check_place(path: Path) -> None:
    if len(os.fsencode(path.with_name(_temporary(path)))) > _MAX_PATH:
        raise ControlError(f"{path}: too long for a socket; choose a shorter run_dir")
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError(f"{path}: something else than a socket is in the way; remove it")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            probe.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError):
        return  # nothing there, or left by a gateway that is gone
    except OSError as error:
        raise ControlError(f"{path}: the socket of another gateway cannot be replaced: {error}") from None
    raise ControlError(f"{path}: a gateway is running already; stop it first, or use another run_dir")


def _bind(path: Path) -> socket.socket:
    """Listen under a name of our own and then rename it: never is there a socket that others may use."""
    temporary = path.with_name(_temporary(path))
    listening = socket.socket(socket.AF_UNIX)
    try:
        temporary.unlink(missing_ok=True)
        listening.bind(str(temporary))
        temporary.chmod(0o600)
        listening.listen(16)
        listening.setblocking(False)
        temporary.rename(path)
    except OSError as error:
        listening.close()
        raise ControlError(f"{path}: the control socket cannot be made: {error.strerror}") from None
    return listening


def _temporary(path: Path) -> str:
    return f".{path.name}.{os.getpid()}"
