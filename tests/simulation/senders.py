"""Senders that behave as MTAs do: they try again what was temporary or lost, with the same octets, until an answer.

A sender may vanish before the dot, or after it and before it hears the reply. What the listener does for the session is
done here: `unheard` where the client has gone, `spoiled` where it went too early, and cancelled when the process stops.
"""

import asyncio
from dataclasses import dataclass, field
from random import Random

from forwarder.model.envelope import Peer
from forwarder.model.message import MemoryContent
from forwarder.model.reply import Reply
from forwarder.session.transaction import Session
from tests.simulation.machine import Gateway, Machine
from tests.simulation.plan import Mail
from tests.simulation.world import World

_FIRST, _LONGEST = 300.0, 14_400.0  # seconds between two attempts of a sender
_CUSTODY = 1100.0  # seconds that stand for: when the message goes into custody
_LOST = Reply(451, "4.4.2", "The client has gone")


@dataclass(eq=False)
class Transaction:
    """One attempt of a sender. `ended` is when the gateway had decided; `heard` the reply that reached the sender."""

    mail: Mail
    gateway: Gateway
    aliases: tuple[str, ...]
    id: str = ""
    accepted: list[str] = field(default_factory=list)
    dot: float = -1.0
    reply: Reply | None = None
    ended: float | None = None
    heard: Reply | None = None
    forgotten: bool = False
    uncertain: bool = False
    gone: bool = False  # the sender does not listen any more
    leaves_at_custody: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def listening(self) -> bool:
        return not self.gone

    @property
    def refused(self) -> bool:
        return self.reply is not None and self.reply.code >= 500


class Sender:
    """One message on its way to us. `pending` are the addresses that nothing is known of yet."""

    def __init__(self, mail: Mail, world: World, machine: Machine, random: Random) -> None:
        self.mail = mail
        self.pending = set(mail.aliases)
        self.acknowledged: set[str] = set()
        self.refused: set[str] = set()
        self.transactions: list[Transaction] = []
        self._world = world
        self._machine = machine
        self._random = random

    async def run(self) -> None:
        """Try until everything is answered, or patience ends."""
        await asyncio.sleep(self.mail.at)
        pause = _FIRST
        until = self._world.now + self.mail.patience
        while self.pending:
            gateway = self._machine.up
            if gateway is not None:
                await self._attempt(gateway)
            if self._world.now >= until:
                break
            if self.pending:
                await asyncio.sleep(pause * (0.8 + 0.4 * self._random.random()))
                pause = min(3 * pause, _LONGEST)
        self._world.tell(f"sender of {self.mail.token} ends, {sorted(self.pending)} undecided")

    async def _attempt(self, gateway: Gateway) -> None:
        aliases = tuple(alias for alias in self.mail.aliases if alias in self.pending)
        transaction = Transaction(self.mail, gateway, aliases)
        self.transactions.append(transaction)
        self._world.tell(f"sender of {self.mail.token} tries for {' '.join(aliases)}")
        talk = gateway.spawn(self._converse(gateway, transaction))
        gateway.talks.add(talk)
        talk.add_done_callback(gateway.talks.discard)
        early = self._random.random() < self.mail.vanishing
        seconds = self._random.choice((0.0, 0.01, 1.0, 20.0, 25.5, _CUSTODY)) if early else 1200.0
        transaction.leaves_at_custody = seconds == _CUSTODY
        try:
            await asyncio.wait_for(transaction.over.wait(), seconds)
        except TimeoutError:
            self._world.tell(f"sender of {self.mail.token} goes away")
            transaction.gone = True
        self._heed(transaction)

    def kept(self, id: str) -> None:
        """Learn that a message goes into custody: some vanish just then."""
        for transaction in self.transactions:
            if transaction.id == id and transaction.leaves_at_custody:
                self._world.tell(f"sender of {self.mail.token} goes away while {id} is stored")
                transaction.gone = True
                transaction.over.set()

    def lose(self, gateway: Gateway) -> None:
        """Learn that the process at the other end has ended."""
        for transaction in self.transactions:
            if transaction.gateway is gateway:
                transaction.over.set()

    def _heed(self, transaction: Transaction) -> None:
        """Act on what was heard."""
        reply = transaction.heard
        told = f"{reply.code} {reply.enhanced}" if reply else "nothing"
        self._world.tell(f"sender of {self.mail.token} heard {told} in {transaction.id}")
        if reply is None or reply.code < 200:
            return
        if reply.positive:
            self.acknowledged.update(transaction.accepted)
            self.pending.difference_update(transaction.accepted)
        elif reply.code >= 500:
            self.refused.update(transaction.accepted)
            self.pending.difference_update(transaction.accepted)
        self._machine.replied()

    async def _converse(self, gateway: Gateway, transaction: Transaction) -> None:
        """Be the listener for one client."""
        try:
            session = Session(gateway.gateway, Peer(self.mail.client, 4321))
            if await self._envelope(session, transaction):
                await self._content(session, transaction)
        finally:
            if not gateway.process.dead:
                transaction.over.set()

    async def _envelope(self, session: Session, transaction: Transaction) -> bool:
        session.ehlo(b"client.test", starttls=False)
        reply = await session.mail(f"FROM:<{self.mail.sender}> BODY=8BITMIME".encode())
        if reply.code != 250:
            return False
        begun = session._transaction
        assert begun is not None
        transaction.id = begun.id
        for alias in transaction.aliases:
            reply = await session.rcpt(f"TO:<{alias}@ours.test>".encode())
            if reply.code == 250:
                transaction.accepted.append(alias)
            elif reply.code >= 500:
                self._world.breaks(f"{alias} is refused at RCPT: {reply}")
        return bool(transaction.accepted)

    async def _content(self, session: Session, transaction: Transaction) -> None:
        octets = self.mail.octets
        if session.data(b"").code != 354:
            return
        half = len(octets) // 2
        session.arriving(octets[:half])
        await asyncio.sleep(0)
        if not transaction.listening():
            session.spoiled(_LOST)
            return
        session.arriving(octets[half:])
        transaction.dot = self._world.now
        try:
            reply = await session.accept(MemoryContent(octets))
        finally:
            transaction.ended = self._world.now
        transaction.reply = reply
        if not transaction.listening():
            if reply.positive:
                session.unheard()
            return
        transaction.heard = reply
