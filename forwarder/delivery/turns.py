"""Waiting in line on asyncio, by the counts of `pool.Slots`."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from forwarder.delivery.pool import Slots


class Turns:
    """At most `limit` holders at once for each key; the others wait in the order in which they came."""

    def __init__(self, limit: int) -> None:
        self._slots: Slots[asyncio.Future[None]] = Slots(limit)

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Hold a slot while the block runs."""
        await self._take(key)
        try:
            yield
        finally:
            self._free(key)

    async def _take(self, key: Hashable) -> None:
        if self._slots.take(key):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots.wait(key, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # A waiter that was cancelled while in line and met by `_free` has been passed over there.
            if not self._slots.leave(key, waiter) and not waiter.cancelled():
                self._free(key)
            raise

    def _free(self, key: Hashable) -> None:
        waiter = self._slots.free(key)
        while waiter and waiter.done():
            waiter = self._slots.free(key)
        if waiter:
            waiter.set_result(None)
