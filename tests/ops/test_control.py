"""The control socket: who may ask, what is answered, and what happens to sockets that are left over."""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.ops import control
from forwarder.ops.control import MAX_REQUEST, ControlError, ControlServer, call


async def echo(request: Mapping[str, object]) -> Mapping[str, object]:
    return {"ok": True, "asked": dict(request), "path": Path("/x")}


async def broken(request: Mapping[str, object]) -> Mapping[str, object]:
    raise RuntimeError("secret details")


async def endless(request: Mapping[str, object]) -> Mapping[str, object]:
    await asyncio.Event().wait()
    return {}


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[ControlServer]:
    server = ControlServer(path, {"echo": echo, "broken": broken, "endless": endless})
    await server.start()
    try:
        yield server
    finally:
        await server.close()


async def ask(path: Path, octets: bytes) -> dict[str, object]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
    writer.write(octets)
    writer.write_eof()
    answer: dict[str, object] = json.loads(await reader.readline())
    assert await reader.read() == b""
    writer.close()
    return answer


async def test_a_command_reaches_its_handler(tmp_path: Path) -> None:
    async with running(tmp_path / "c.sock"):
        answer = await asyncio.to_thread(call, tmp_path / "c.sock", "echo", force=True)
    assert answer == {"ok": True, "asked": {"force": True}, "path": "/x"}


async def test_an_unknown_command_is_an_error(tmp_path: Path) -> None:
    async with running(tmp_path / "c.sock"):
        with pytest.raises(ControlError, match="does not know this command"):
            await asyncio.to_thread(call, tmp_path / "c.sock", "dance")
        assert (await ask(tmp_path / "c.sock", b"{}\n"))["ok"] is False


async def test_a_handler_that_fails_tells_only_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path / "c.sock"):
        with caplog.at_level(logging.ERROR), pytest.raises(ControlError, match="the log of the gateway says why"):
            await asyncio.to_thread(call, tmp_path / "c.sock", "broken")
        assert "secret details" in caplog.text
        assert (await ask(tmp_path / "c.sock", b'{"command": "echo"}\n'))["ok"] is True


async def test_requests_are_bounded_in_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "c.sock"):
        long = b'{"command": "' + b"x" * MAX_REQUEST
        assert "at most" in str((await ask_open(tmp_path / "c.sock", long))["error"])
        monkeypatch.setattr(control, "_PATIENCE", 0.05)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "c.sock"))
        assert await reader.read() == b""
        writer.close()


async def ask_open(path: Path, octets: bytes) -> dict[str, object]:
    """Ask without ending the line or the stream."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(octets)
        answer: dict[str, object] = json.loads(await reader.readline())
        return answer
    finally:
        writer.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_whatever_is_sent_the_server_answers_the_next(tmp_path: Path, requests: list[bytes]) -> None:
    async def main() -> None:
        async with running(tmp_path / "c.sock"):
            for request in [*requests, b"[" * 50_000, b"null\n", b'{"command": []}\n']:
                assert (await ask(tmp_path / "c.sock", request))["ok"] is False
            assert (await ask(tmp_path / "c.sock", b'{"command": "echo"}\n'))["ok"] is True

    asyncio.run(main())


async def test_nobody_else_may_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path / "c.sock"):
        assert stat.S_IMODE((tmp_path / "c.sock").stat().st_mode) == 0o600
        monkeypatch.setattr(control, "_uid", lambda connection: os.geteuid() + 1)
        assert "only root" in str((await ask(tmp_path / "c.sock", b'{"command": "echo"}\n'))["error"])


def test_the_kernel_says_who_asks() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert control._uid(ours) == os.getuid()


async def test_the_socket_is_gone_after_closing_and_pending_answers_too(tmp_path: Path) -> None:
    async with running(tmp_path / "c.sock"):
        asking = asyncio.create_task(ask_open(tmp_path / "c.sock", b'{"command": "endless"}\n'))
        await asyncio.sleep(0.05)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(json.JSONDecodeError):
        await asking


async def test_closing_leaves_a_successors_socket(tmp_path: Path) -> None:
    path = tmp_path / "c.sock"
    first = ControlServer(path, {})
    await first.start()
    (tmp_path / "kept").hardlink_to(path)  # so that the successor gets another inode
    path.unlink()
    async with running(path):
        await first.close()
        assert (await ask(path, b'{"command": "echo"}\n'))["ok"] is True


async def test_the_socket_of_a_dead_gateway_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    async with running(tmp_path / "c.sock"):
        assert (await ask(tmp_path / "c.sock", b'{"command": "echo"}\n'))["ok"] is True


async def test_that_of_a_live_one_is_not(tmp_path: Path) -> None:
    async with running(tmp_path / "c.sock"):
        with pytest.raises(ControlError, match="running already"):
            await ControlServer(tmp_path / "c.sock", {}).start()
        assert (await ask(tmp_path / "c.sock", b'{"command": "echo"}\n'))["ok"] is True


async def test_places_where_no_socket_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ControlError, match="something else than a socket"):
        await ControlServer(tmp_path / "file", {}).start()
    assert (tmp_path / "file").read_text() == "x"
    with pytest.raises(ControlError, match="shorter run_dir"):
        await ControlServer(tmp_path / ("x" * 100), {}).start()
    with pytest.raises(ControlError, match="folder of the control socket"):
        await ControlServer(tmp_path / "file" / "c.sock", {}).start()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ControlError, match="writable by nobody but us"):
        await ControlServer(tmp_path / "open" / "c.sock", {}).start()


async def test_the_folder_is_made(tmp_path: Path) -> None:
    async with running(tmp_path / "run" / "c.sock"):
        assert (tmp_path / "run" / "c.sock").is_socket()


def test_asking_nobody(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"the gateway is not running.*forwarder serve"):
        call(tmp_path / "c.sock", "echo")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "c.sock"))
    with pytest.raises(ControlError, match="not running"):
        call(tmp_path / "c.sock", "echo")


def test_asking_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(ControlError, match=r"permission denied.*as root or as the user"):
        call(tmp_path / "c.sock", "echo")


async def test_asking_a_gateway_that_is_stuck_or_goes_away(tmp_path: Path) -> None:
    async with running(tmp_path / "c.sock"):
        with pytest.raises(ControlError, match="did not answer within"):
            await asyncio.to_thread(call, tmp_path / "c.sock", "endless", timeout=0.1)
        asking = asyncio.create_task(asyncio.to_thread(call, tmp_path / "c.sock", "endless"))
        await asyncio.sleep(0.1)
    with pytest.raises(ControlError, match="gave no answer"):
        await asking


def test_it_works_under_uvloop(tmp_path: Path) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with running(tmp_path / "c.sock"):
            answer = await asyncio.to_thread(call, tmp_path / "c.sock", "echo", force=True)
            assert answer["ok"] is True
        assert not (tmp_path / "c.sock").exists()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
