"""The promises, held against what happened.

For each address that a sender was told 250 for, and each mailbox behind it: the message was taken by its next hop, or
is in the spool, or its sender was sent a DSN. What is taken twice must have one of these causes, and no other:

- `wire`: the gateway could not know of the first copy, because its 250 did not arrive (RFC 1047);
- `killed`: the gateway was killed between the 250 and the record of it, or could not record it since its disk failed,
  or between custody and the moment in which the ledger knew that the sender had not heard of it;
- `commit`: a commit failed that had reached the disk all the same, and the sender was told to come again.

A gateway has `SOON` seconds to record something after it knows; a later kill is no excuse.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from forwarder.delivery.memory import key_of
from forwarder.model.address import parse_mailbox
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.letter import Kind, Letter, State
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from tests.simulation.machine import Left, Machine
from tests.simulation.plan import BOXES, POSTMASTER
from tests.simulation.senders import Sender, Transaction
from tests.simulation.world import Copy, World

SOON = 5.0
_PREFIX = b"handed-on:"
_RECIPIENT = re.compile(rb"Final-Recipient: rfc822; *(\w+)@ours\.test", re.IGNORECASE)
_OVER = b"Status: 4.4.7"
_ABOUT = re.compile(rb"In-Reply-To: <(\w+)@")
_INJECTED = re.compile(
    "injected|OSError|Spool(Full|Broken|Error|Refused)|until the gateway is started|recording fails|could not be"
    "|no mail is accepted|is not on disk|refused because|outcomes could not be recorded|the spool (is full|failed)"
    "|a notice to the postmaster cannot be delivered|ballast was thrown off"
)


@dataclass
class Checker:
    """Collects what each process left, and judges at the end."""

    world: World
    machine: Machine
    senders: dict[str, Sender]

    def __post_init__(self) -> None:
        self._transactions: dict[str, Transaction] = {}

    # When a process has ended

    def left(self, left: Left) -> None:
        """Compare what is durable with what was known."""
        for sender in self.senders.values():
            for transaction in sender.transactions:
                self._transactions[transaction.id] = transaction
                if transaction.gateway.process is left.process and transaction.id:
                    self._custody_left(sender, transaction, left)
        for copy in self.world.copies:
            if copy.process is left.process and copy.heard is not None:
                self._copy_left(copy, left)
        for sender in self.senders.values():
            for alias in sender.acknowledged:
                self._acknowledged_left(sender, alias, left.letters.values())

    def _acknowledged_left(self, sender: Sender, alias: str, letters: Iterable[Letter]) -> None:
        """What was acknowledged is somewhere at every moment."""
        for to in BOXES[alias]:
            if not any(True for _ in self._places(sender, alias, to, letters)):
                self.world.breaks(f"LOST: {sender.mail.token} for {to} was acknowledged and is nowhere after a restart")

    def _copy_left(self, copy: Copy, left: Left) -> None:
        letter = left.letters.get(copy.transaction or copy.token)
        queued = letter is not None and any(
            str(delivery.destination.address) == copy.to and progress.state in (State.QUEUED, State.HELD)
            for delivery, progress in zip(letter.message.deliveries, letter.progress, strict=True)
        )
        sender, transaction = self.senders.get(copy.token), self._transactions.get(copy.transaction)
        unknown = False
        since = copy.heard or 0.0
        if sender and transaction and not transaction.forgotten:
            alias = _alias(transaction.accepted, copy.to)
            if transaction.gateway.process is left.process:
                since = max(since, left.at if transaction.ended is None else transaction.ended)
            unheard = transaction.heard is None or not transaction.heard.positive
            unknown = unheard and alias in sender.pending and _key(sender, alias, copy.to) not in left.keys
        if queued or unknown:
            copy.forgotten = True
            what = "still queued" if queued else "not in the ledger"
            self._excuse(left, since, f"{copy.token} for {copy.to}, delivered by {copy.transaction}, is {what}")

    def _custody_left(self, sender: Sender, transaction: Transaction, left: Left) -> None:
        letter = left.letters.get(transaction.id)
        heard = transaction.heard is not None and transaction.heard.positive
        if letter is None or heard:
            return
        if transaction.reply is not None and not transaction.reply.positive:
            transaction.uncertain = True  # the commit that failed has reached the disk
            if not left.faults:
                self.world.breaks(f"{transaction.id} was answered {transaction.reply}, and is in the spool")
            return
        owners = [(to, _alias(transaction.accepted, to)) for to in _parts(letter)]
        missing = [to for to, one in owners if one in sender.pending and _key(sender, one, to) not in left.keys]
        if missing:
            transaction.forgotten = True
            ended = left.at if transaction.ended is None else transaction.ended
            self._excuse(left, ended, f"{transaction.id} is in custody unheard, and the ledger does not know {missing}")

    def _excuse(self, left: Left, since: float, what: str) -> None:
        """Break a promise unless the process had no time or no disk."""
        late = left.at - since
        failing = left.unable or any(at >= since - 1 for at in left.faults)
        if not failing and (left.orderly or late > SOON):
            how = "stopped" if left.orderly else "was killed"
            self.world.breaks(f"not recorded: {what}, {late:.1f} s later, when the process {how}")

    # At the end

    def finish(self, letters: Mapping[str, Letter], told: bytes) -> None:
        """Judge the whole run; `told` is all that the spool still holds as text of notices."""
        for sender in self.senders.values():
            for transaction in sender.transactions:
                self._transactions[transaction.id] = transaction
        for letter in letters.values():
            self._letter(letter, told)
        for sender in self.senders.values():
            self._sender(sender, list(letters.values()))
        self._content()
        self._reports(letters)
        for at, id in self.world.expired:
            begun = self._transactions[id].dot if id in self._transactions else 0.0
            if not self._may_expire(begun, at):
                self.world.breaks(f"{id} expired after {at - begun:.0f} s")
        for alert in self.world.alerts:
            if not _INJECTED.search(alert):
                self.world.breaks(f"an alert that no injected fault explains: {alert}")
        for fault in self.world.loop.faults:
            if "Killed" not in fault:
                self.world.breaks(f"unhandled: {fault}")

    def _may_expire(self, begun: float, at: float) -> bool:
        return at - begun >= self.machine.plan.intervals.expire

    def _letter(self, letter: Letter, told: bytes) -> None:
        id = letter.message.id
        for delivery, progress in zip(letter.message.deliveries, letter.progress, strict=True):
            to = str(delivery.destination.address)
            if progress.state is State.QUEUED:
                self.world.breaks(f"STALL: {id} for {to} is still queued: {progress}")
            if progress.state is State.HELD:
                self._held(letter, to, told, untold=progress.untold)
                if progress.waited < self.machine.plan.intervals.expire and not self._was_refused(to):
                    self.world.breaks(f"{id} for {to} is held too early: {progress}")

    def _held(self, letter: Letter, to: str, told: bytes, *, untold: bool) -> None:
        if letter.kind is Kind.NOTICE:
            return
        if untold or letter.message.id.encode() not in told:
            self.world.breaks(f"{letter.message.id} for {to} is held, and the owner was not told")

    def _was_refused(self, to: str) -> bool:
        domain = to.rpartition("@")[2]
        return to in self.world.refusals or domain in self.world.refusals or domain == "nowhere.test"

    def _sender(self, sender: Sender, letters: list[Letter]) -> None:
        for alias in sender.acknowledged:
            for to in BOXES[alias]:
                places = list(self._places(sender, alias, to, letters))
                if not places:
                    self.world.breaks(f"LOST: {sender.mail.token} for {to} was acknowledged and is nowhere")
                elif len(places) > 1:
                    self._several(sender, to, places)
        for to in {to for alias in sender.mail.aliases for to in BOXES[alias]}:
            self._copies(sender, to)
        for copy in self.world.copies:
            transaction = self._transactions.get(copy.transaction)
            if transaction and transaction.refused:
                self.world.breaks(f"{copy.token} for {copy.to} was delivered though {copy.transaction} was refused")

    def _places(self, sender: Sender, alias: str, to: str, letters: Iterable[Letter]) -> Iterator[str]:
        """Say where one message for one mailbox is."""
        token = sender.mail.token
        if any(copy.token == token and copy.to == to for copy in self.world.copies):
            yield "delivered"
        message_id = f"<{token}@"
        for letter in letters:
            if letter.kind is Kind.MAIL and letter.message_id.startswith(message_id) and to in _open_parts(letter):
                yield "in the spool"
                break
        if any(about == (token, alias) for about in self._dsns(letters)):
            yield "returned"

    def _dsns(self, letters: Iterable[Letter]) -> Iterator[tuple[str, str]]:
        for octets in self._bounces(letters):
            yield from _about(octets)

    def _bounces(self, letters: Iterable[Letter]) -> Iterator[bytes]:
        for letter in letters:
            if letter.kind is Kind.BOUNCE:
                yield b"".join(letter.message.content.chunks())
        for copy in self.world.copies:
            if not copy.transaction and copy.to != str(POSTMASTER):
                yield copy.octets

    def _several(self, sender: Sender, to: str, places: list[str]) -> None:
        copies = [copy for copy in self.world.copies if copy.token == sender.mail.token and copy.to == to]
        unsure = any(copy.heard is None or copy.forgotten for copy in copies)
        twice = any(transaction.forgotten or transaction.uncertain for transaction in sender.transactions)
        # A DSN names our address, not the mailbox behind it.
        shared = "returned" in places and any(to in boxes and len(boxes) > 1 for boxes in BOXES.values())
        if not unsure and not twice and not (shared and len(places) == 2):
            self.world.breaks(f"{sender.mail.token} for {to} is more than one of: {places}")

    def _copies(self, sender: Sender, to: str) -> None:
        """See that each further copy has a cause."""
        copies = [copy for copy in self.world.copies if copy.token == sender.mail.token and copy.to == to]
        copies.sort(key=lambda copy: copy.sent)
        for number, copy in enumerate(copies[1:], 1):
            causes = {cause for first in copies[:number] if (cause := self._cause(first, copy))}
            if causes:
                self.world.count(f"second copies: {min(causes)}")
            else:
                ids = f"{copies[number - 1].transaction} and {copy.transaction}"
                self.world.breaks(f"DUPLICATE: {sender.mail.token} for {to} was delivered twice, by {ids}")

    def _cause(self, first: Copy, second: Copy) -> str:
        over = first.over is not None and first.over <= second.sent
        if first.heard is None and (over or first.process is not second.process):
            return "wire"
        if first.forgotten:
            return "killed"
        if first.transaction != second.transaction:
            both = [self._transactions[id] for id in (first.transaction, second.transaction)]
            if any(one.forgotten for one in both):
                return "killed"
            if any(one.uncertain for one in both):
                return "commit"
        return ""

    def _content(self) -> None:
        for copy in self.world.copies:
            sender = self.senders.get(copy.token)
            if sender and not copy.octets.endswith(b"\r\n" + sender.mail.octets):
                self.world.breaks(f"{copy.token} for {copy.to} is not what was sent")
            elif copy.transaction and not sender:
                self.world.breaks(f"{copy.to} got something that nobody sent")

    def _reports(self, letters: Mapping[str, Letter]) -> None:
        """See that DSNs went only where they may, once, and not too early."""
        ids: dict[tuple[str, str], set[str]] = {}
        late: dict[tuple[str, str], float] = {}  # when DSNs were seen that say that the time was over
        world = self.world
        own = [(copy.token, copy.octets, copy.sent) for copy in world.copies if not copy.transaction]
        own += [
            (letter.message.id, b"".join(letter.message.content.chunks()), world.now)
            for letter in letters.values()
            if letter.kind is Kind.BOUNCE
        ]
        for id, octets, at in own:
            for about in _about(octets):
                ids.setdefault(about, set()).add(id)
                if _OVER in octets:
                    late[about] = at
        for (token, alias), some in ids.items():
            sender = self.senders[token]
            self.world.count("addresses returned")
            if not sender.mail.told:
                self.world.breaks(f"BACKSCATTER: a DSN about {token}, whose sender may not be told")
            most = sum(_may_be_kept(one) and alias in one.accepted for one in sender.transactions)
            if len(some) > max(1, most):
                self.world.breaks(f"{len(some)} DSNs about {token} for {alias}, where {most} may be")
            expired = any(
                self._transactions[id].mail is sender.mail for _, id in self.world.expired if id in self._transactions
            )
            if (token, alias) in late:  # a gateway that is killed at the right moment tells its log nothing of it
                begun = min(one.dot for one in sender.transactions if one.dot >= 0)
                expired = expired or self._may_expire(begun, late[token, alias])
            if not expired and not any(map(self._was_refused, BOXES[alias])):
                self.world.breaks(f"a DSN about {token} for {alias}, neither refused nor expired")


def _about(octets: bytes) -> list[tuple[str, str]]:
    """Give the message and addresses that a DSN speaks of."""
    token = _ABOUT.search(octets)
    return [(token[1].decode(), alias.decode()) for alias in _RECIPIENT.findall(octets)] if token else []


def _may_be_kept(transaction: Transaction) -> bool:
    reply = transaction.reply
    return reply is None or reply.positive or transaction.uncertain


def _parts(letter: Letter) -> list[str]:
    return [str(delivery.destination.address) for delivery in letter.message.deliveries]


def _open_parts(letter: Letter) -> list[str]:
    both = zip(_parts(letter), letter.progress, strict=True)
    return [to for to, progress in both if progress.state in (State.QUEUED, State.HELD)]


def _alias(accepted: Iterable[str], to: str) -> str:
    return next((alias for alias in accepted if to in BOXES[alias]), "")


def _key(sender: Sender, alias: str, to: str) -> bytes:
    """Give the key under which the ledger must know it."""
    original = parse_mailbox(sender.mail.sender) if sender.mail.sender else None
    content = MemoryContent(sender.mail.octets)
    delivery = Delivery(parse_mailbox(f"{alias}@ours.test"), Destination(parse_mailbox(to)), b"")
    return _PREFIX + key_of(Outgoing("", None, original, MailOptions(), content, (delivery,)), delivery, content.digest)
