"""The PROXY protocol's header, versions 1 and 2, which a load balancer sends before anything else.

`read_proxy_header` gives the `Peer` that the balancer speaks for, or None when what came is no header (the connection
must then be closed without an answer). A balancer's own health checks (LOCAL, UNKNOWN) come from the balancer itself.
Nothing beyond the header is read. It raises nothing but what `asyncio.CancelledError` is.
"""

import logging

from aiosmtpd.proxy_protocol import AF, PROTO, V2_CMD, ProxyData, get_proxy

from forwarder.listener.inbox import Ended, Inbox, LineTooLong, TimedOut
from forwarder.listener.limits import canonical_address
from forwarder.model.envelope import Peer

_V1_LINE = 107  # octets with CRLF, by the PROXY protocol's specification, section 2.1

# It would print a line of its own for each bad header; what matters is told by our own log.
logging.getLogger("mail.debug").disabled = True


async def read_proxy_header(inbox: Inbox, balancer: Peer, timeout: float) -> Peer | None:
    """Read a header within `timeout` seconds for each of its (at most five) parts."""
    try:
        data = await get_proxy(_Reader(inbox, timeout))
    except (Ended, TimedOut, LineTooLong):
        return None
    return _peer(data, balancer) if data.valid else None


def _peer(data: ProxyData, balancer: Peer) -> Peer | None:
    if data.command == V2_CMD.LOCAL or data.family == AF.UNSPEC or data.protocol == PROTO.UNSPEC:
        return balancer
    if data.protocol != PROTO.STREAM or data.family not in (AF.INET, AF.INET6) or data.src_port is None:
        return None
    return Peer(canonical_address(str(data.src_addr)), data.src_port, canonical_address(str(data.dst_addr)))


class _Reader:
    """An inbox as aiosmtpd's parser wants it."""

    def __init__(self, inbox: Inbox, timeout: float) -> None:
        self._inbox = inbox
        self._timeout = timeout

    async def read(self, num_bytes: int | None = None) -> bytes:
        return await self.readexactly(num_bytes or 0)

    async def readexactly(self, n: int) -> bytes:
        return await self._inbox.exactly(n, self._timeout)

    async def readuntil(self, until_chars: bytes | None = None) -> bytes:
        return await self._inbox.line(_V1_LINE, self._timeout)
