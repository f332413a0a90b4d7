"""A worker's side of what all processes share: ports that ask the parent (`desk.Desk` answers).

Contract: that of `forwarder.ports`. A parent that cannot answer raises `rpc.RpcError`, except where a port has a word
for it. Who is cancelled while asking leaves nothing behind: a late yes is given back.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from forwarder.model.faults import INTERNAL, NO_ROOM
from forwarder.model.letter import Letter, Part
from forwarder.model.message import Content
from forwarder.model.outcome import Outcome
from forwarder.model.reply import Reply
from forwarder.ops import wire
from forwarder.ops.rpc import Channel, RpcError
from forwarder.ports import UNUSED, Load, NotKept, SpoolError, SpoolFull, Turn


class Files(Protocol):
    """The message files of the spool, as a worker uses them. Both raise `SpoolError`."""

    async def write(self, id: str, content: Content) -> Content:
        """Store a content durably under a letter's id, where the parent finds it."""
        ...

    def remove(self, id: str) -> None:
        """Remove soon what was stored for nothing; what cannot be removed is swept up by the parent."""
        ...


class RemoteDoorkeeper:
    """Implements `ports.Doorkeeper`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def enter(self, client: str) -> Reply | None:
        """Ask for a place."""

        def leave_again(refused: Reply | None) -> None:
            if refused is None:
                self.leave(client)

        return await self._channel.call(wire.ENTER, client, leave_again)

    def leave(self, client: str) -> None:
        """Give a place up."""
        self._channel.tell(wire.LEAVE, client)


class RemoteLimiter:
    """Implements `ports.Limiter`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def room(self, key: str, limit: int, seconds: int) -> bool:
        """Say whether `take` would succeed now, without counting."""
        return await self._channel.call(wire.ROOM, (key, limit, seconds))

    async def take(self, key: str, limit: int, seconds: int) -> bool:
        """Count one event; say whether it is within `limit` per `seconds`."""

        def untake(taken: bool) -> None:
            if taken:
                self.give_back(key)

        return await self._channel.call(wire.TAKE, (key, limit, seconds), untake)

    def give_back(self, key: str) -> None:
        """Take back the latest event that was counted."""
        self._channel.tell(wire.GIVE_BACK, key)


class RemoteLedger:
    """Implements `ports.Ledger`."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def recall(self, keys: Sequence[bytes]) -> Sequence[Outcome | None]:
        """Give what is known of each key."""
        return await self._channel.call(wire.RECALL, tuple(keys))

    async def remember(self, entries: Mapping[bytes, Outcome]) -> None:
        """Keep outcomes."""
        await self._channel.call(wire.REMEMBER, dict(entries))

    async def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what was used up."""
        await self._channel.call(wire.FORGET, tuple(keys))

    def running(self, keys: Sequence[bytes]) -> None:
        """Say that attempts go on."""
        self._channel.tell(wire.RUNNING, tuple(keys))

    def ended(self, keys: Sequence[bytes]) -> None:
        """Say that they have ended."""
        self._channel.tell(wire.ENDED, tuple(keys))

    async def strike(self, key: bytes) -> int:
        """Count a refusal that speaks of the content."""
        return await self._channel.call(wire.STRIKE, key)


class RemotePacer:
    """Implements `ports.Pacer`. Monotonic time is the same in all processes of a machine."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def turn(self, load: Load, until: float) -> Turn:
        """Wait for a turn."""
        return await self._channel.call(wire.TURN, (load, until), lambda turn: self.done(turn, (UNUSED,)))

    def done(self, turn: Turn, outcomes: Sequence[Outcome]) -> None:
        """End a turn."""
        self._channel.tell(wire.DONE, (turn.number, tuple(outcomes)))


class RemoteKeeper:
    """Implements `ports.Keeper`: the content is stored here, the rest by the parent."""

    def __init__(self, channel: Channel, files: Files) -> None:
        self._channel = channel
        self._files = files
        self._refusal: Reply | None = None
        channel.hear(wire.REFUSAL, self._hear_refusal)

    def refusal(self) -> Reply | None:
        """Say what the parent said last."""
        return self._refusal

    async def keep(self, letter: Letter, outcomes: Sequence[Outcome]) -> None:
        """Store the content, then let the parent take the letter; raise `NotKept`."""
        id = letter.message.id
        try:
            stored = await self._files.write(id, letter.message.content)
        except SpoolFull as error:
            raise NotKept(NO_ROOM, str(error)) from error
        except SpoolError as error:
            raise NotKept(INTERNAL, str(error)) from error
        try:
            refused = await self._channel.call(wire.KEEP, (wire.sheet_of(letter, stored), tuple(outcomes)))
        except RpcError as error:  # it may have been taken: the file stays
            raise NotKept(INTERNAL, str(error)) from None
        if refused is not None:
            self._files.remove(id)
            raise NotKept(*refused)

    def settled(self, part: Part, outcome: Outcome) -> None:
        """Say how an attempt ended that was running when its letter was taken."""
        self._channel.tell(wire.SETTLED, (part, outcome))

    def _hear_refusal(self, refusal: Reply | None) -> None:
        self._refusal = refusal


def remote_ports(channel: Channel, files: Files) -> wire.Ports:
    """Give the ports of a worker."""
    return wire.Ports(
        limiter=RemoteLimiter(channel),
        doorkeeper=RemoteDoorkeeper(channel),
        ledger=RemoteLedger(channel),
        pacer=RemotePacer(channel),
        keeper=RemoteKeeper(channel, files),
    )
