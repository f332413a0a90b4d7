"""What systemd and a service tell each other: readiness, the watchdog, sockets that are handed over.

Spoken without a library: each is a few octets (sd_notify(3), sd_listen_fds(3)). Without systemd (no variables in the
environment) every function does nothing. Notifications that cannot be sent are lost silently, for the service runs
on without them; sockets that cannot be used raise `ActivationError`, because listening elsewhere than the
administrator meant would be worse than not to start.
"""

import asyncio
import os
import re
import socket
import stat
import time
from collections.abc import MutableMapping

_FIRST = 3  # SD_LISTEN_FDS_START
_MAX_SOCKETS = 64
_NUMBER = re.compile(r"[0-9]{1,18}")
_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(Exception):
    """Sockets were handed over that cannot be used; the text says which and why."""


def notify(state: str, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Tell the service manager, as `READY=1\\nSTATUS=…`; say whether it was told."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path  # an abstract name
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True


def notify_reloading(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Say that a reload begins; READY=1 ends it (`Type=notify-reload` compares the time)."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", environ)


def watchdog_interval(environ: MutableMapping[str, str] = os.environ) -> float | None:
    """Give the seconds between two signs of life, half of what systemd waits; None where it does not watch us."""
    text = environ.get("WATCHDOG_USEC", "")
    if not (_NUMBER.fullmatch(text) and int(text)):
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(text) / 2_000_000


async def watch(environ: MutableMapping[str, str] = os.environ) -> None:
    """Give signs of life for as long as the event loop turns; until cancelled, or at once where nobody watches."""
    interval = watchdog_interval(environ)
    while interval is not None:
        notify("WATCHDOG=1", environ)
        await asyncio.sleep(interval)


def inherited_sockets(environ: MutableMapping[str, str] = os.environ, *, first: int = _FIRST) -> list[socket.socket]:
    """Give the listening sockets that systemd handed over, none where it did not; raise `ActivationError`.

    They are not inherited further, and the variables are taken out of the environment, so that no child takes them
    for its own.
    """
    pid, count, names = (environ.pop(name, "") for name in _LISTEN)
    if not count or pid != str(os.getpid()):
        return []
    if not (_NUMBER.fullmatch(count) and int(count) <= _MAX_SOCKETS):
        raise ActivationError(f"LISTEN_FDS={count!r}: expected a number of sockets up to {_MAX_SOCKETS}")
    labels = [*names.split(":"), *[""] * int(count)]
    descriptors = range(first, first + int(count))
    for descriptor, label in zip(descriptors, labels, strict=False):
        _check(descriptor, label or "unnamed")
    return [_adopt(descriptor) for descriptor in descriptors]


def _check(descriptor: int, label: str) -> None:
    what = f"descriptor {descriptor} ({label}) handed over by systemd"
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ActivationError(f"{what} is not a socket")
    except OSError as error:
        raise ActivationError(f"{what} is not open") from error
    probe = socket.socket(fileno=os.dup(descriptor))
    with probe:
        if probe.family not in (socket.AF_INET, socket.AF_INET6) or probe.type != socket.SOCK_STREAM:
            raise ActivationError(f"{what} is not a TCP socket: use ListenStream= with a port")
        if not probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise ActivationError(f"{what} does not listen: use Accept=no")


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    adopted = socket.socket(fileno=descriptor)
    adopted.setblocking(False)
    return adopted
