"""Sockets to listen on: "[::]:25", "0.0.0.0:25", "127.0.0.1:2525".

`open_listening` raises `BindError`, whose text names the address and says what is wrong in words for an administrator.
An address that is taken may be asked for again for a while: processes of a gateway that was killed hold it a moment
longer than the one that is seen to end.
"""

import errno
import re
import socket
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

BACKLOG = 1024
_AGAIN = 0.05  # seconds between two tries at an address that is taken

_ENDPOINT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):(\d{1,5})", re.ASCII)
_REASONS = {
    errno.EADDRINUSE: "another program listens there already",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
    errno.EACCES: "ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket handed over by systemd",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}


class BindError(Exception):
    """An address cannot be listened on; the text names it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address and a port (0: any that is free)."""

    address: IPv4Address | IPv6Address
    port: int

    def __str__(self) -> str:
        """Write it as the configuration does."""
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read "[address]:port" or "address:port"; raise `BindError`."""
    match = _ENDPOINT.fullmatch(text)
    try:
        if match is None or int(match[3]) > 65_535:
            raise ValueError
        address = IPv6Address(match[1]) if match[1] else IPv4Address(match[2])
    except ValueError:
        raise BindError(f'"{text}": expected an address and a port such as "[::]:25" or "0.0.0.0:25"') from None
    return Endpoint(address, int(match[3]))


def open_listening(text: str, patience: float = 0.0) -> socket.socket:
    """Give a socket that listens on that address; one that is taken is tried for `patience` seconds, which block."""
    endpoint, deadline = parse_endpoint(text), time.monotonic() + patience
    while True:
        try:
            return _open(text, endpoint)
        except BindError as error:
            taken = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE
            if not taken or time.monotonic() >= deadline:
                raise
        time.sleep(_AGAIN)


def _open(text: str, endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if endpoint.address.version == 6 else socket.AF_INET
    try:
        opened = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BindError(_reason(text, error)) from error
    try:
        _prepare(opened)
        opened.bind((str(endpoint.address), endpoint.port))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise BindError(_reason(text, error)) from error
    return opened


def address_of(listening: socket.socket) -> str:
    """Give what a socket is bound to, as the configuration writes it."""
    address, port = listening.getsockname()[:2]
    return str(Endpoint(ip_address(address), port))


def _prepare(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart must not wait for old connections
    if opened.family == socket.AF_INET6:
        # "[::]:25" and "0.0.0.0:25" side by side, and IPv4 clients by their own addresses.
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


def _reason(text: str, error: OSError) -> str:
    why = _REASONS.get(error.errno or 0) or error.strerror or str(error)
    return f'cannot listen on "{text}": {why}'
