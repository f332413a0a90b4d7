"""systemd's side is played by real sockets, and by systemd-socket-activate where that is installed."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forwarder.ops.systemd import (
    ActivationError,
    inherited_sockets,
    notify,
    notify_reloading,
    watch,
    watchdog_interval,
)


def manager(address: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(address)
    listening.settimeout(10)
    return listening


def test_readiness_is_told(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as listening:
        assert notify("READY=1\nSTATUS=Listening", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert listening.recv(1000) == b"READY=1\nSTATUS=Listening"


def test_an_abstract_socket_is_written_with_an_at_sign() -> None:
    name = f"forwarder-test-{os.getpid()}"
    with manager("\0" + name) as listening:
        assert notify("STOPPING=1", {"NOTIFY_SOCKET": "@" + name})
        assert listening.recv(1000) == b"STOPPING=1"


def test_a_reload_says_when_it_began(tmp_path: Path) -> None:
    before = time.monotonic_ns() // 1000
    with manager(str(tmp_path / "notify")) as listening:
        assert notify_reloading({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        state, _, began = listening.recv(1000).partition(b"\nMONOTONIC_USEC=")
    assert state == b"RELOADING=1"
    assert before <= int(began) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/notify"}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    assert not notify("READY=1", environ)


def test_a_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")):
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        assert not all(notify("WATCHDOG=1" + " " * 1000, environ) for _ in range(10_000))


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_how_often_signs_of_life_are_wanted(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environ) == seconds


async def test_signs_of_life_are_given(tmp_path: Path) -> None:
    with manager(str(tmp_path / "notify")) as listening:
        task = asyncio.create_task(watch({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000"}))
        for _ in range(3):
            assert await asyncio.to_thread(listening.recv, 100) == b"WATCHDOG=1"
        task.cancel()
    await watch({})  # ends at once


def activated(count: str, pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "smtp:smtp6", "OTHER": "x"}


def handed_over(*sockets: socket.socket) -> int:
    """Put duplicates at successive descriptors, as systemd does, and give the first."""
    first = 500
    for number, each in enumerate(sockets):
        os.dup2(each.fileno(), first + number, inheritable=True)
    return first


def test_sockets_are_taken_over_and_the_environment_is_cleaned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        environ = activated("2")
        sockets = inherited_sockets(environ, first=handed_over(one, other))
        assert [each.getsockname() for each in sockets] == [one.getsockname(), other.getsockname()]
        assert not any(each.get_inheritable() or each.getblocking() for each in sockets)
        assert environ == {"OTHER": "x"}
        for each in sockets:
            each.close()


@pytest.mark.parametrize("environ", [{}, activated("1", pid=1), activated("")])
def test_what_is_meant_for_others_is_left_alone(environ: dict[str, str]) -> None:
    assert inherited_sockets(environ) == []


@pytest.mark.parametrize("count", ["x", "-1", "²", "65", "9" * 5000])
def test_a_senseless_count_is_refused(count: str) -> None:
    with pytest.raises(ActivationError, match="expected a number"):
        inherited_sockets(activated(count))


def refused(descriptor: int) -> str:
    try:
        with pytest.raises(ActivationError) as error:
            inherited_sockets(activated("1"), first=descriptor)
    finally:
        os.close(descriptor)
    return str(error.value)


def test_descriptors_that_do_not_listen_are_refused_with_their_name(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.socket() as idle,
        socket.socket(socket.AF_UNIX) as local,
        (tmp_path / "file").open("w") as file,
    ):
        assert "(smtp) handed over by systemd is not a TCP socket" in refused(os.dup(datagrams.fileno()))
        assert "is not a TCP socket" in refused(os.dup(local.fileno()))
        assert "does not listen" in refused(os.dup(idle.fileno()))
        assert "is not a socket" in refused(os.dup(file.fileno()))
    with pytest.raises(ActivationError, match="is not open"):
        inherited_sockets(activated("1"), first=900)


PROGRAM = """
from forwarder.ops.systemd import inherited_sockets
listening, = inherited_sockets()
listening.setblocking(True)
connection, _ = listening.accept()
connection.sendall(b"220 inherited")
"""


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_systemd_hands_over_a_socket() -> None:
    with socket.socket() as chosen:
        chosen.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        chosen.bind(("127.0.0.1", 0))
        address = chosen.getsockname()
    command = [
        "systemd-socket-activate",
        "-l",
        f"127.0.0.1:{address[1]}",
        "-E",
        "PYTHONPATH",
        sys.executable,
        "-c",
        PROGRAM,
    ]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            assert _greeting(address) == b"220 inherited"
        finally:
            process.kill()


def _greeting(address: tuple[str, int]) -> bytes:
    for _ in range(500):
        try:
            with socket.create_connection(address, timeout=20) as connection:
                return connection.recv(100)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nobody listens")
