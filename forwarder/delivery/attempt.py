"""One attempt to hand one transaction on: target after target until every recipient is decided.

Each target is asked when the pacer gives a turn for it; what it holds back counts as a temporary failure. The next
target is asked when a connection cannot be made, is refused by greeting or EHLO, cannot be encrypted as
wanted, or ends before the last dot was sent; never after it (RFC 1047: two copies are worse than a delay). A handshake
that fails where encryption is optional is followed by clear text to the same address. A connection used again that is
found dead before MAIL was answered is replaced by a fresh one.

`Attempt.run` tells each recipient's `Outcome` once, through the callback, as soon as it is known. It raises only what
reading the content raises. When no target is left, the reply that a host gave counts more than one of ours.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from forwarder.delivery.judge import Judge
from forwarder.delivery.line import Line
from forwarder.delivery.line import Load as LineLoad
from forwarder.delivery.lines import Lines
from forwarder.delivery.route import Router, Target, Unroutable, Way
from forwarder.delivery.turns import Turns
from forwarder.model.message import Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import UNUSED, ConnectionLost, EventLog, Held, Load, Pacer, Turn
from forwarder.smtp.client import Decided, TlsUse, Transaction
from forwarder.smtp.ehlo import Extension

_PATIENCE = 30.0  # seconds for a turn at a further target


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one attempt has to hand on: `head` and the message's content to the transaction's recipients.

    `patience` is until when to wait for a turn at the first target, by the clock's monotonic seconds.
    """

    way: Way
    message: Outgoing
    head: bytes
    transaction: Transaction
    patience: float


@dataclass(frozen=True, slots=True)
class Means:
    """What an attempt works with. `in_all` bounds how many ask a target at once, whichever it is."""

    router: Router
    lines: Lines
    judge: Judge
    pacer: Pacer
    in_all: Turns


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told: of each recipient's outcome by its index, and when the first turn came."""

    decided: Callable[[int, Outcome], None]
    begun: Callable[[], None]


class Attempt:
    """One attempt, begun when it is made."""

    def __init__(self, parcel: Parcel, means: Means, listener: Listener, log: EventLog) -> None:
        self._parcel = parcel
        self._router = means.router
        self._lines = means.lines
        self._judge = means.judge
        self._pacer = means.pacer
        self._in_all = means.in_all
        self._listener = listener
        self._log = log
        self._open = list(range(len(parcel.transaction.recipients)))
        self._failure: Outcome | None = None
        self._held: dict[int, Outcome] = {}
        self._heard: list[Outcome] = []  # at the present target
        self._began = False
        self._until = self._lines.last_moment()

    async def run(self) -> None:
        """Decide every recipient."""
        try:
            async with aclosing(self._targets()) as targets:
                async for target in targets:
                    await self._ask(target)
                    if not self._open:
                        return
                    if self._lines.is_past(self._until):  # whoever is next would have no time
                        break
        except Unroutable as unroutable:
            self._failure = self._failure or unroutable.outcome
        for index in self._open:
            outcome = self._failure or self._held.get(index)
            assert outcome is not None  # a target that decides not everybody leaves its reason
            self._listener.decided(index, outcome)

    async def _targets(self) -> AsyncGenerator[Target, None]:
        """Give the targets in the router's order, but those that are known to be out of reach last."""
        shunned = []
        async with aclosing(self._router.targets(self._parcel.way)) as targets:
            async for target in targets:
                if self._lines.is_shunned(target):
                    shunned.append(target)
                else:
                    yield target
        for target in shunned:
            yield target

    # Turns

    async def _ask(self, target: Target) -> None:
        """Offer what is open to one target, when the pacer lets us."""
        asked = list(self._open)
        patience = self._lines.in_seconds(_PATIENCE) if self._began else self._parcel.patience
        turn = await self._pacer.turn(self._load(target, asked), patience)
        for position, held in turn.held.items():
            self._hold(asked[position], held)
        if not turn.number:
            return
        self._heard = [UNUSED]
        try:
            async with self._in_all.turn(None):  # not before: who waits for one provider takes no room from others
                self._heard = []
                if not self._began:
                    self._began = True
                    self._listener.begun()
                await self._use(turn, target, [index for n, index in enumerate(asked) if n not in turn.held])
        finally:
            self._pacer.done(turn, self._heard)

    async def _use(self, turn: Turn, target: Target, asked: Sequence[int]) -> None:
        if turn.ipv4 and ":" in target.address:
            reply = Reply(451, "4.4.4", f"{target.host} takes no mail from our IPv6 address")
            self._note_failure(Outcome(Verdict.DEFERRED, reply), target)
            return
        tls = TlsUse.REQUIRE if turn.secure else self._lines.tls
        for group in [[index] for index in asked] if turn.apart else [asked]:
            await self._offer(target, tls, group, turn.messages)

    def _load(self, target: Target, asked: Sequence[int]) -> Load:
        message = self._parcel.message
        recipients = self._parcel.transaction.recipients
        return Load(
            host=target.host,
            source=self._lines.source(target.address) or "",
            domain=message.sender.domain if message.sender else "",
            sender=message.original_sender.domain if message.original_sender else "",
            mailboxes=tuple("@".join(recipients[index].address.key) for index in asked),
            trusted=message.authenticated,
        )

    def _hold(self, index: int, held: Held) -> None:
        outcome = Outcome(Verdict.DEFERRED, held.reply, wait=held.seconds)
        known = self._held.get(index)
        if known is None or known.wait > held.seconds:
            self._held[index] = outcome

    # At one target

    async def _offer(self, target: Target, tls: TlsUse, asked: Sequence[int], most: int) -> None:
        used = self._lines.reuse(target, tls)
        if used and not await self._died(used, asked, most):
            return
        fresh = await self._connect(target, tls, asked, most)
        still_open = any(index in self._open for index in asked)
        if fresh and fresh.handshake_failed and still_open and tls is TlsUse.OPPORTUNISTIC:
            await self._connect(target, TlsUse.NEVER, asked, most)

    async def _died(self, line: Line, asked: Sequence[int], most: int) -> bool:
        """Use a line again; say whether it was dead and nothing came of it."""
        failure = await self._carry(line, asked, most)
        if failure and not line.client.mail_answered:
            return True
        self._note_failure(failure, line.target)
        return False

    async def _connect(self, target: Target, tls: TlsUse, asked: Sequence[int], most: int) -> Line | None:
        try:
            line = await self._lines.open(target, tls)
        except ConnectionLost as lost:
            outcome = Outcome(Verdict.DEFERRED, Reply(451, "4.4.1", f"{target}: {lost}"))
            self._note_failure(outcome, target)
            return None
        failure = await self._carry(line, asked, most)
        if failure and not line.client.answered:
            self._lines.shun(target)
        self._note_failure(failure, target)
        return line

    async def _carry(self, line: Line, asked: Sequence[int], most: int) -> Outcome | None:
        """Offer to those asked over a line, then give the line back; say why somebody is still open."""
        failures = []

        def decided(one: Decided) -> None:
            notifies = Extension.DSN in line.client.offer
            named = replace(one.outcome, relay=str(line.target), tls=line.tls, notifies=notifies)
            outcome = self._judge.judge(named, self._log)
            if outcome.remote:
                self._heard.append(outcome)
            if one.elsewhere:
                failures.append(outcome)
            else:
                self._open.remove(asked[one.recipient])
                self._listener.decided(asked[one.recipient], outcome)

        try:
            await line.carry(LineLoad(self._transaction(asked), self._pieces, decided, self._until))
        finally:
            await self._lines.give_back(line, most)
        return failures[0] if failures else None

    def _transaction(self, asked: Sequence[int]) -> Transaction:
        whole = self._parcel.transaction
        return replace(whole, recipients=tuple(whole.recipients[index] for index in asked))

    def _pieces(self) -> Iterator[bytes]:
        yield self._parcel.head
        yield from self._parcel.message.content.chunks()

    def _note_failure(self, outcome: Outcome | None, target: Target) -> None:
        if outcome is None:
            return
        if outcome.remote or self._failure is None or not self._failure.remote:
            self._failure = outcome
        reply = outcome.reply
        self._log.event(
            "attempt",
            outcome="failed",
            relay=str(target),
            code=reply.code,
            reply=str(reply),
            tls=outcome.tls or None,
        )
