"""Outgoing TCP connections on asyncio: the real form of the `Dialer` and `Connection` ports.

Every failure is a `ConnectionLost` with a plain reason that holds no octets of the peer. At most about 128 KiB that
the peer sent are held, at most one piece of ours beyond what the socket takes. A peer's end of data shows as b"" once
what came before it has been read. Works on asyncio's and uvloop's loops.

TLS is encryption alone, for `require` as well: certificates are not verified, since without MTA-STS or DANE (which
come with their own policy) nothing says which name an MX has to prove, and most would fail (RFC 7435).
"""

import asyncio
import errno
import os
import ssl
from collections.abc import Iterable
from functools import cache
from typing import cast

from forwarder.model.address import parse_ip
from forwarder.model.envelope import Tls
from forwarder.ports import ConnectionLost, TimedOut

_READ_AHEAD = 65_536  # octets held before the peer has to wait

_REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENETUNREACH: "no route to the network",
    errno.EHOSTUNREACH: "no route to the host",
    errno.ETIMEDOUT: "timed out",
    errno.EADDRNOTAVAIL: "the source address is not one of this machine",
    errno.EACCES: "not permitted by this machine",
    errno.EPERM: "not permitted by this machine",
    errno.EMFILE: "this machine has no file descriptors left",
    errno.ENFILE: "this machine has no file descriptors left",
    errno.EAFNOSUPPORT: "this machine does not speak that kind of address",
}


class TcpDialer:
    """Makes `TcpConnection`s."""

    async def connect(self, address: str, port: int, *, source: str | None, timeout: float) -> "TcpConnection":
        """Connect to an IP address from `source` (used where it is of the same family); raise `ConnectionLost`."""
        loop = asyncio.get_running_loop()
        local = (source, 0) if source and _family(source) == _family(address) else None
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(TcpConnection, address, port, local_addr=local)
        except TimeoutError:
            raise TimedOut(f"timed out after {timeout:g} s") from None
        except OSError as error:
            raise ConnectionLost(_reason(error)) from None
        return connection


class TcpConnection(asyncio.Protocol):
    """One connection; its methods are those of the `Connection` port."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._ended = False
        self._failure = ""
        self._writable = True
        self._waiter: asyncio.Future[None] | None = None

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; TCP_NODELAY is set by the loop itself."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Keep octets, and let the peer wait when it is far ahead."""
        self._received += data
        if len(self._received) >= _READ_AHEAD and self._transport:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Note the peer's end; the connection closes."""
        self._ended = True
        self._wake()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end and its reason."""
        self._ended = True
        if exc is not None:
            self._failure = _reason(exc)
        self._transport = None
        self._wake()

    def pause_writing(self) -> None:
        """Note that the socket takes no more for now."""
        self._writable = False

    def resume_writing(self) -> None:
        """Note that it does again."""
        self._writable = True
        self._wake()

    # What the port promises

    @property
    def tls(self) -> Tls | None:
        """The TLS layer, if there is one."""
        secured = self._transport.get_extra_info("ssl_object") if self._transport else None
        return Tls(secured.version(), secured.cipher()[0]) if secured else None

    @property
    def ended(self) -> bool:
        """Whether the peer has closed or sent something unread: where nobody was asked, it cannot be used again."""
        return self._ended or bool(self._received)

    async def read(self, timeout: float) -> bytes:
        """Give some octets that arrived; b"" once when the peer has closed."""
        until = _in(timeout)
        while not self._received:
            if self._failure:
                raise ConnectionLost(self._failure)
            if self._ended:
                return b""
            await self._wait(until, timeout)
        octets = bytes(self._received)
        self._received.clear()
        if len(octets) >= _READ_AHEAD and self._transport:
            self._transport.resume_reading()
        return octets

    async def write(self, pieces: Iterable[bytes], timeout: float) -> None:
        """Send; the time-out is for each piece to be taken whole, up to a bounded rest that is kept for the peer."""
        for piece in pieces:
            until = _in(timeout)
            self._open().write(piece)
            while not self._writable:  # whatever wakes us meanwhile, such as octets from the peer
                self._open()
                await self._wait(until, timeout)

    async def start_tls(self, host: str, timeout: float) -> None:
        """Shake hands as a client, `host` as the server name; whatever had been read ahead in clear text is dropped."""
        transport = self._open()
        self._received.clear()
        loop = asyncio.get_running_loop()
        name = host if host and not _is_address(host) else None  # RFC 6066 3: an address is no server name
        try:
            async with asyncio.timeout(timeout):
                # No octet can come in between: start_tls stops the clear text's reader before it first waits.
                secured = await loop.start_tls(transport, self, _context(), server_hostname=name)
        except TimeoutError:
            await self.close()
            raise TimedOut(f"the TLS handshake timed out after {timeout:g} s") from None
        except (OSError, ssl.SSLError) as error:
            await self.close()
            raise ConnectionLost(f"the TLS handshake failed: {_reason(error)}") from None
        if secured is None:
            raise ConnectionLost("the TLS handshake failed: connection closed")
        self._transport = secured

    async def close(self) -> None:
        """Close without waiting for the peer; never raises."""
        if transport := self._transport:
            self._transport = None
            transport.abort()

    def _open(self) -> asyncio.Transport:
        if self._transport is None or self._failure or self._transport.is_closing():
            raise ConnectionLost(self._failure or "connection closed")
        return self._transport

    async def _wait(self, until: float, timeout: float) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(until):
                await self._waiter
        except TimeoutError:
            raise TimedOut(f"timed out after {timeout:g} s") from None
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)


def _in(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


@cache
def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # opportunistic: see the head of this module
    return context


def _family(address: str) -> int:
    return parse_ip(address).version


def _is_address(host: str) -> bool:
    try:
        parse_ip(host)
    except ValueError:
        return False
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "protocol error").replace("_", " ").lower()
    number = error.errno if isinstance(error, OSError) else None
    if number in _REASONS:
        return _REASONS[number]
    return os.strerror(number).lower() if number and number > 0 else "connection closed"
