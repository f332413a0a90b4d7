"""Whether what was written to a client finds it still there.

A client whose input has ended may read on, or may have closed: its TCP acknowledges the octets, or resets the
connection (RFC 9293 3.10.7.1, 3.10.7.4). The event loops do not tell which: they stop looking at the end of the input,
and while reading is paused. So Linux is asked. Nothing here raises for what a client may do; left out is a client that
goes later, with the octets unread.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from enum import Enum

from forwarder.listener.inbox import Inbox

_TCP_CLOSE = 7  # the state after a reset; TCP_INFO begins with it (tcp(7), linux/tcp.h, net/tcp_states.h)
_LOOK_TIME = 0.01  # seconds
_LOOKS = 200


class _Passage(Enum):
    UNDER_WAY = "under way"
    ARRIVED = "arrived"
    LOST = "lost"


async def arrives(wire: asyncio.Transport, inbox: Inbox) -> bool:
    """Say whether the client is there. It takes no time but for one whose input has ended; after 2 s that has gone."""
    if not inbox.ended:
        return _passage(wire) is not _Passage.LOST
    for _ in range(_LOOKS):
        await asyncio.sleep(_LOOK_TIME)
        found = _passage(wire)
        if found is not _Passage.UNDER_WAY:
            return found is _Passage.ARRIVED
    return False


def _passage(wire: asyncio.Transport) -> _Passage:
    if wire.is_closing():
        return _Passage.LOST
    connected = wire.get_extra_info("socket")
    if connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
        return _Passage.LOST
    unacknowledged = struct.unpack("i", fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return _Passage.UNDER_WAY if unacknowledged or wire.get_write_buffer_size() else _Passage.ARRIVED
