"""Listening: takes sockets, makes a connection object per client, stops in good order.

    serve(sockets) … stop_accepting() … drain(timeout)

What can fail: `serve` raises OSError for a socket that cannot listen. One client's troubles never reach another.
"""

import asyncio
import socket
from collections.abc import Iterable

from forwarder.listener.conversation import Conversations
from forwarder.listener.limits import Door
from forwarder.listener.protocol import ListenerOptions, SmtpConnection
from forwarder.listener.sockets import BACKLOG
from forwarder.ports import Doorkeeper


class Listener:
    """Serves clients on any number of sockets. `conversations` makes the session of one client."""

    def __init__(self, conversations: Conversations, options: ListenerOptions, doorkeeper: Doorkeeper) -> None:
        self._conversations = conversations
        self._options = options
        self._door = Door(doorkeeper)
        self._turns = asyncio.Lock()
        self._members: set[SmtpConnection] = set()
        self._servers: list[asyncio.AbstractServer] = []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._members)

    def reconfigure(self, options: ListenerOptions) -> None:
        """Use other options for clients that connect from now on. What the doorkeeper counts by is not among them."""
        self._options = options

    async def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Begin to accept on sockets that are bound; they are this listener's from now on."""
        loop = asyncio.get_running_loop()
        for one in sockets:
            one.setblocking(False)
            self._servers.append(await loop.create_server(self._connect, sock=one, backlog=BACKLOG))

    def stop_accepting(self) -> None:
        """Close the sockets; connected clients stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, timeout: float) -> int:
        """Stop accepting; let transactions end and say 421 between them. Give the number cut off after `timeout`."""
        self.stop_accepting()
        for member in list(self._members):
            member.drain()
        tasks = [member.task for member in self._members if member.task is not None]
        if not tasks:
            return 0
        _, late = await asyncio.wait(tasks, timeout=timeout)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return len(late)

    def _connect(self) -> SmtpConnection:
        return SmtpConnection(self._conversations, self._options, self._door, self._members, self._turns)
