"""One SMTP client's session, verb by verb. READ THIS FIRST.

The listener feeds it commands and the message; every method gives the `Reply` to send. It knows nothing of sockets,
TLS handshakes or time-outs (those are the listener's) and nothing of next hops (those are the courier's, behind a
port). The order of a message's life is the order of the methods: greeting, ehlo, mail, rcpt, data, accept.

What can fail: every refusal is a `Reply`, and is logged as `reject` with the stage. Nothing here raises for what a
client may send. Left out on purpose: AUTH, BDAT, EXPN, TURN and its kin, which the listener refuses by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions, Peer, Recipient, Tls
from forwarder.model.headers import split_header
from forwarder.model.message import Content, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.policy import answer
from forwarder.policy import content as content_policy
from forwarder.ports import DnsStatus, EventLog
from forwarder.rewrite import headers, prepare
from forwarder.rewrite.srs import SrsError
from forwarder.rules import Defer, Discard, Forward, Refuse
from forwarder.session.gateway import Gateway
from forwarder.session.recipient import resolve
from forwarder.smtp.paths import CommandError, parse_helo, parse_mail, parse_rcpt

_LOOP = Reply(554, "5.4.6", "Mail loop: the message was delivered to this address before")


@dataclass(slots=True)
class _Accepted:
    """A recipient that was answered 250, and what the rules said of it."""

    recipient: Recipient
    decision: Forward | Discard


@dataclass(slots=True)
class _Transaction:
    """From MAIL to the reply to the dot. `return_path` is the rewritten sender."""

    id: str
    sender: Address | None
    return_path: Address | None
    options: MailOptions
    log: EventLog
    accepted: list[_Accepted] = field(default_factory=list)
    asked: int = 0


class Session:
    """One client's connection. Create it with the `Gateway` that is in force when the client connects."""

    def __init__(self, gateway: Gateway, peer: Peer) -> None:
        self._gateway = gateway
        self._peer = peer
        self._log = gateway.log.bind(client=peer.address)
        self._helo = ""
        self._extended = False
        self._tls: Tls | None = None
        self._reverse_name: str | None = None
        self._transaction: _Transaction | None = None
        self._log.event("connect", port=peer.port, local=peer.local or None)

    @property
    def message_size(self) -> int:
        """The largest message that is accepted, in octets."""
        return self._gateway.settings.message_size

    @property
    def in_transaction(self) -> bool:
        """Whether a MAIL command is waiting for its message."""
        return self._transaction is not None

    def greeting(self) -> Reply:
        """Answer the connection (RFC 5321 3.1)."""
        return Reply(220, "", f"{self._gateway.settings.hostname} ESMTP forwarder")

    def helo(self, argument: bytes) -> Reply:
        """Answer HELO (RFC 5321 4.1.1.1)."""
        return self._greeted(argument, extended=False, reply=Reply(250, "", self._gateway.settings.hostname))

    def ehlo(self, argument: bytes, *, starttls: bool) -> Reply:
        """Answer EHLO with what we offer; STARTTLS only when the listener says that it can (RFC 3207 4.2)."""
        offers = [
            self._gateway.settings.hostname,
            "PIPELINING",  # RFC 2920
            f"SIZE {self.message_size}",  # RFC 1870
            "8BITMIME",  # RFC 6152
            *(["STARTTLS"] if starttls else []),
            "ENHANCEDSTATUSCODES",  # RFC 2034
            "DSN",  # RFC 3461
            "SMTPUTF8",  # RFC 6531
            "HELP",
        ]
        return self._greeted(argument, extended=True, reply=Reply(250, "", "\n".join(offers)))

    def _greeted(self, argument: bytes, *, extended: bool, reply: Reply) -> Reply:
        try:
            self._helo = parse_helo(argument, extended=extended)
        except CommandError as error:
            return self._refuse(error.reply, "helo")
        self._extended = extended
        self._transaction = None  # RFC 5321 4.1.4: EHLO clears what was begun
        return reply

    def secured(self, tls: Tls) -> None:
        """Forget all that was said in clear text (RFC 3207 4.2)."""
        self._tls = tls
        self._helo = ""
        self._transaction = None

    async def mail(self, argument: bytes) -> Reply:
        """Answer MAIL (RFC 5321 4.1.1.2); on 250 a transaction has begun and has its id."""
        if not self._helo:
            return Reply(503, "5.5.1", "Send EHLO or HELO first")
        if self._transaction:
            return Reply(503, "5.5.1", "A transaction is under way: end it or send RSET first")
        try:
            command = parse_mail(argument)
            return_path = command.sender and self._gateway.srs.encode(command.sender, self._gateway.day)
        except CommandError as error:
            return self._refuse(error.reply, "mail", command=argument)
        except SrsError as error:
            return self._refuse(Reply(553, "5.1.7", f"This sender cannot be written to later: {error}"), "mail")
        if command.options.size > self.message_size:  # RFC 1870 6.1
            reply = Reply(552, "5.3.4", f"The message is larger than {self.message_size} octets")
            return self._refuse(reply, "mail", size=command.options.size, from_=command.sender or "<>")
        await self._find_reverse_name()
        self._begin(command.sender, return_path, command.options)
        return Reply(250, "2.1.0", "Sender noted")

    def _begin(self, sender: Address | None, return_path: Address | None, options: MailOptions) -> None:
        message_id = self._gateway.new_id()
        log = self._log.bind(id=message_id, from_=sender or "<>")
        self._transaction = _Transaction(message_id, sender, return_path, options, log)

    async def rcpt(self, argument: bytes) -> Reply:
        """Answer RCPT (RFC 5321 4.1.1.3); unknown recipients are refused here, so that no bounce is ever needed."""
        transaction = self._transaction
        if transaction is None:
            return Reply(503, "5.5.1", "Send MAIL first")
        if len(transaction.accepted) >= self._gateway.settings.recipients:  # RFC 5321 4.5.3.1.10
            reply = Reply(452, "4.5.3", f"Too many recipients: at most {self._gateway.settings.recipients} at once")
            return self._refuse(reply, "rcpt")
        transaction.asked += 1
        try:
            command = parse_rcpt(argument, smtputf8=transaction.options.smtputf8)
        except CommandError as error:
            return self._refuse(error.reply, "rcpt", command=argument)
        decision = resolve(self._gateway, command.address, transaction.sender)
        if isinstance(decision, Forward) and (over := self._over_limit(decision, count=False)):
            return self._refuse(over, "rcpt", to=command.address, rule=_places(decision))
        if not isinstance(decision, (Forward, Discard)):
            return self._refused_recipient(command.address, decision)
        transaction.accepted.append(_Accepted(Recipient(command.address, command.options), decision))
        return Reply(250, "2.1.5", "Recipient noted")

    def _refused_recipient(self, recipient: Address, decision: object) -> Reply:
        assert isinstance(decision, (Refuse, Defer))
        return self._refuse(decision.reply, "rcpt", to=recipient, rule=_places(decision))

    def _over_limit(self, decision: Forward, *, count: bool) -> Reply | None:
        """Check the `limit` options of the rules that led here; each message counts once it has arrived."""
        check = self._gateway.limiter.take if count else self._gateway.limiter.room
        if all(check(limit.key, limit.count, limit.seconds) for limit in decision.limits):
            return None
        return Reply(450, "4.7.1", "This address gets more mail than it is set up for: try again later")

    def data(self, argument: bytes) -> Reply:
        """Answer DATA (RFC 5321 4.1.1.4): 354, or why not."""
        if argument:
            return Reply(501, "5.5.4", "DATA takes no argument")
        if self._transaction is None:
            return Reply(503, "5.5.1", "Send MAIL and RCPT first")
        if not self._transaction.accepted:
            asked = self._transaction.asked
            return Reply(554, "5.5.1", "No valid recipients") if asked else Reply(503, "5.5.1", "Send RCPT first")
        return Reply(354, "", "End the message with a dot on a line by itself")

    async def accept(self, content: Content) -> Reply:
        """Answer the dot: hand the message on and tell what became of it (RFC 5321 4.2.5, 6.1)."""
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        log = transaction.log.bind(size=content.size)
        head = content.head(self._gateway.settings.content.header_size + 1)
        header = split_header(head)
        reply = content_policy.objection(head, header, self._gateway.settings.content)
        if reply is None:
            looping = content_policy.marks(header)
            outcomes = await self._hand_on(transaction, content, looping, log)
            reply = answer.answer(outcomes, transaction.id)
        name = {2: "accepted", 4: "deferred"}.get(reply.code // 100, "reject")
        log.event(name, stage="data" if name == "reject" else None, code=reply.code, reply=reply)
        return reply

    async def _hand_on(
        self, transaction: _Transaction, content: Content, looping: frozenset[bytes], log: EventLog
    ) -> Sequence[Outcome]:
        """Offer the message to every destination; give their outcomes, and ours for recipients that get none."""
        deadline = self._gateway.clock.monotonic() + self._gateway.settings.cutthrough_deadline
        outcomes, routed = [], []
        for one in transaction.accepted:
            if (ours := self._own_outcome(one, looping, log)) is not None:
                outcomes.append(ours)
            elif isinstance(one.decision, Forward):
                routed.append(prepare.Routed(one.recipient, one.decision.destinations))
                targets = " ".join(str(destination.address) for destination in one.decision.destinations)
                log.event("routed", to=one.recipient.address, destination=targets, rule=_places(one.decision))
        if routed:
            deliveries = prepare.deliveries(routed, self._trace(transaction))
            outgoing = Outgoing(
                transaction.id, transaction.return_path, transaction.sender, transaction.options, content, deliveries
            )
            outcomes.extend(await self._gateway.courier.hand_on(outgoing, deadline))
        return outcomes

    def _own_outcome(self, one: _Accepted, looping: frozenset[bytes], log: EventLog) -> Outcome | None:
        """Decide what never leaves us: discarded mail (which counts as delivered), loops, mail over a limit."""
        if isinstance(one.decision, Discard):
            log.event("routed", to=one.recipient.address, destination="discard", rule=_places(one.decision))
            return Outcome(Verdict.DELIVERED, Reply(250, "2.0.0", "Discarded by a rule"))
        if headers.mark(one.recipient.address) in looping:
            return Outcome(Verdict.REFUSED, _LOOP)
        if (over := self._over_limit(one.decision, count=True)) is not None:
            return Outcome(Verdict.DEFERRED, over)
        return None

    def _trace(self, transaction: _Transaction) -> headers.Trace:
        utf8 = transaction.options.smtputf8
        hand = headers.Hand(self._peer, self._helo, self._reverse_name or "", self._extended, utf8, self._tls)
        return headers.Trace(self._gateway.settings.hostname, transaction.id, self._gateway.clock.now(), hand)

    def spoiled(self, reply: Reply) -> Reply:
        """End a transaction whose message came in but cannot be accepted, for the listener's reason."""
        return self._refuse(reply, "data", end=True)

    def rset(self) -> Reply:
        """Answer RSET (RFC 5321 4.1.1.5)."""
        self._transaction = None
        return Reply(250, "2.0.0", "Forgotten")

    def noop(self) -> Reply:
        """Answer NOOP."""
        return Reply(250, "2.0.0", "Still here")

    def vrfy(self, argument: bytes) -> Reply:
        """Answer VRFY (RFC 5321 3.5.3)."""
        return Reply(252, "2.1.5", "Not verified: send mail to the address to find out")

    def help(self) -> Reply:
        """Answer HELP."""
        return Reply(214, "2.0.0", "EHLO HELO STARTTLS MAIL RCPT DATA RSET NOOP VRFY HELP QUIT: see RFC 5321")

    def quit(self) -> Reply:
        """Answer QUIT."""
        return Reply(221, "2.0.0", f"{self._gateway.settings.hostname} closes the connection", close=True)

    def refused(self, reply: Reply, stage: str) -> Reply:
        """Log a refusal that the listener decided on."""
        return self._refuse(reply, stage)

    def _refuse(self, reply: Reply, stage: str, *, end: bool = False, **fields: object) -> Reply:
        log = self._transaction.log if self._transaction else self._log
        log.event("reject", stage=stage, helo=self._helo or None, code=reply.code, reply=reply, **fields)
        if end:
            self._transaction = None
        return reply

    async def _find_reverse_name(self) -> None:
        """Look up the client's name once, and believe it only if it points back (RFC 8601 3: iprev)."""
        if self._reverse_name is not None:
            return
        self._reverse_name = ""
        resolver, address = self._gateway.resolver, self._peer.address
        names = await resolver.ptr(address)
        for name in names.records[:3] if names.status is DnsStatus.FOUND else ():
            forward = await resolver.addresses(name, ipv6=":" in address)
            if address in forward.records:
                self._reverse_name = name
                return


def _places(decision: Forward | Discard | Refuse | Defer) -> str | None:
    return " ".join(str(place) for place in decision.path) or None
