"""One attempt to hand one transaction on: target after target until every recipient is decided.

The next target is asked when a connection cannot be made, is refused by greeting or EHLO, cannot be encrypted as
wanted, or ends before the last dot was sent; never after it (RFC 1047: two copies are worse than a delay). A handshake
that fails where encryption is optional is followed by clear text to the same address. A connection used again that is
found dead before MAIL was answered is replaced by a fresh one.

`Attempt.run` tells each recipient's `Outcome` once, through the callback, as soon as it is known. It raises only what
reading the content raises. When no target is left, the reply that a host gave counts more than one of ours.
"""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace

from forwarder.delivery.judge import Judge
from forwarder.delivery.line import Line, Load
from forwarder.delivery.lines import Lines
from forwarder.delivery.route import Router, Target, Unroutable, Way
from forwarder.model.message import Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import ConnectionLost, EventLog
from forwarder.smtp.client import Decided, TlsUse, Transaction


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one attempt has to hand on: `head` and the message's content to the transaction's recipients."""

    way: Way
    message: Outgoing
    head: bytes
    transaction: Transaction


class Attempt:
    """One attempt, begun when it is made. `decided` is called with the index of a recipient and its outcome."""

    def __init__(
        self,
        parcel: Parcel,
        router: Router,
        lines: Lines,
        judge: Judge,
        decided: Callable[[int, Outcome], None],
        log: EventLog,
    ) -> None:
        self._parcel = parcel
        self._router = router
        self._lines = lines
        self._judge = judge
        self._decided = decided
        self._log = log
        self._open = list(range(len(parcel.transaction.recipients)))
        self._failure: Outcome | None = None
        self._until = lines.last_moment()

    async def run(self) -> None:
        """Decide every recipient."""
        try:
            async with aclosing(self._targets()) as targets:
                async for target in targets:
                    await self._offer(target)
                    if not self._open:
                        return
                    if self._lines.is_past(self._until):  # whoever is next would have no time
                        break
        except Unroutable as unroutable:
            self._failure = self._failure or unroutable.outcome
        assert self._failure is not None  # a target that decides not everybody leaves its reason
        for index in self._open:
            self._decided(index, self._failure)

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

    async def _offer(self, target: Target) -> None:
        used = self._lines.reuse(target)
        if used and not await self._died(used):
            return
        fresh = await self._connect(target, self._lines.tls)
        if fresh and fresh.handshake_failed and self._open and self._lines.tls is TlsUse.OPPORTUNISTIC:
            await self._connect(target, TlsUse.NEVER)

    async def _died(self, line: Line) -> bool:
        """Use a line again; say whether it was dead and nothing came of it."""
        failure = await self._carry(line)
        if failure and not line.client.mail_answered:
            return True
        self._note_failure(failure, line.target)
        return False

    async def _connect(self, target: Target, tls: TlsUse) -> Line | None:
        try:
            line = await self._lines.open(target, tls)
        except ConnectionLost as lost:
            outcome = Outcome(Verdict.DEFERRED, Reply(451, "4.4.1", f"{target}: {lost}"))
            self._note_failure(outcome, target)
            return None
        self._note_failure(await self._carry(line), target)
        return line

    async def _carry(self, line: Line) -> Outcome | None:
        """Offer what is open over a line, then give the line back; say why somebody is still open."""
        asked = list(self._open)
        failures = []

        def decided(one: Decided) -> None:
            named = replace(one.outcome, relay=str(line.target), tls=line.tls)
            outcome = self._judge.judge(named, self._log)
            if one.elsewhere:
                failures.append(outcome)
            else:
                self._open.remove(asked[one.recipient])
                self._decided(asked[one.recipient], outcome)

        try:
            await line.carry(Load(self._transaction(asked), self._pieces, decided, self._until))
        finally:
            await self._lines.give_back(line)
        return failures[0] if failures else None

    def _transaction(self, asked: list[int]) -> Transaction:
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
