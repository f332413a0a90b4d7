"""One SMTP client's session, verb by verb. READ THIS FIRST.

The listener feeds it commands and the message; every method gives the `Reply` to send. It knows nothing of sockets,
TLS handshakes or time-outs (those are the listener's) and nothing of next hops (those are the courier's, behind a
port). The order of a message's life is the order of the methods: greeting, ehlo, mail, rcpt, data, accept.

What can fail: every refusal is a `Reply`, and is logged as `reject` with the stage. Nothing here raises for what a
client may send. Left out on purpose: AUTH, BDAT, EXPN, TURN and its kin, which the listener refuses by name.
"""

from dataclasses import replace

from forwarder.model.address import Address
from forwarder.model.envelope import MailOptions, Peer, Recipient, Tls
from forwarder.model.message import Content, Outgoing, SpentContent
from forwarder.model.reply import Reply
from forwarder.rewrite.headers import Hand
from forwarder.rewrite.srs import SrsError
from forwarder.rules import Defer, Discard, Forward, Refuse
from forwarder.session.custody import note_unheard
from forwarder.session.examination import Examination, Question
from forwarder.session.gateway import Gateway
from forwarder.session.handover import Accepted, Arrival, Transaction, hand_over, over_limit, places
from forwarder.session.recipient import resolve
from forwarder.smtp.paths import CommandError, parse_helo, parse_mail, parse_rcpt


class Session:
    """One client's connection. Create it with the `Gateway` that is in force when the client connects."""

    def __init__(self, gateway: Gateway, peer: Peer) -> None:
        self._gateway = gateway
        self._peer = peer
        self._log = gateway.log.bind(client=peer.address)
        self._helo = ""
        self._extended = False
        self._tls: Tls | None = None
        self._transaction: Transaction | None = None
        self._handed_on: Outgoing | None = None
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
        if reply := self._not_now():
            return reply
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
        self._begin(command.sender, return_path, command.options)
        return Reply(250, "2.1.0", "Sender noted")

    def _not_now(self) -> Reply | None:
        """Say why no transaction can begin."""
        if not self._helo:
            return Reply(503, "5.5.1", "Send EHLO or HELO first")
        if self._transaction:
            return Reply(503, "5.5.1", "A transaction is under way: end it or send RSET first")
        reply = self._gateway.keeper.refusal()
        return self._refuse(reply, "mail") if reply else None

    def _begin(self, sender: Address | None, return_path: Address | None, options: MailOptions) -> None:
        message_id = self._gateway.new_id()
        log = self._log.bind(id=message_id, from_=sender or "<>")
        self._transaction = Transaction(message_id, sender, return_path, options, log)

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
        address = command.address
        if not address.domain:  # RFC 5321 4.5.1: the bare <Postmaster> is that of this host
            address = Address(address.local, self._gateway.settings.hostname)
        decision = resolve(self._gateway, address, transaction.sender)
        if isinstance(decision, Forward) and (over := await over_limit(self._gateway, decision)):
            return self._refuse(over, "rcpt", to=address, rule=places(decision.path))
        if not isinstance(decision, (Forward, Discard)):
            return self._refused_recipient(address, decision)
        transaction.accepted.append(Accepted(Recipient(address, command.options), decision))
        return Reply(250, "2.1.5", "Recipient noted")

    def _refused_recipient(self, recipient: Address, decision: object) -> Reply:
        assert isinstance(decision, (Refuse, Defer))
        return self._refuse(decision.reply, "rcpt", to=recipient, rule=places(decision.path))

    def data(self, argument: bytes) -> Reply:
        """Answer DATA (RFC 5321 4.1.1.4): 354, or why not."""
        if argument:
            return Reply(501, "5.5.4", "DATA takes no argument")
        if self._transaction is None:
            return Reply(503, "5.5.1", "Send MAIL and RCPT first")
        if not self._transaction.accepted:
            asked = self._transaction.asked
            return Reply(554, "5.5.1", "No valid recipients") if asked else Reply(503, "5.5.1", "Send RCPT first")
        self._transaction.examination = self._examine(self._transaction.sender)
        return Reply(354, "", "End the message with a dot on a line by itself")

    def _examine(self, sender: Address | None) -> Examination:
        settings = self._gateway.settings
        question = Question(self._peer.address, self._helo, sender, settings.hostname)
        return Examination(
            settings.checks, question, self._gateway.resolver, self._gateway.clock, settings.content.header_size
        )

    def arriving(self, octets: bytes) -> None:
        """Take note of content while it arrives: it is hashed, and DNS is asked ahead."""
        assert self._transaction is not None and self._transaction.examination is not None
        self._transaction.examination.feed(octets)

    async def accept(self, content: Content) -> Reply:
        """Answer the dot: check the message, hand it on and tell what became of it (RFC 5321 4.2.5, 6.1)."""
        transaction, self._transaction = self._transaction, None
        assert transaction is not None
        log = transaction.log.bind(size=content.size)
        hand = Hand(self._peer, self._helo, "", self._extended, transaction.options.smtputf8, self._tls)
        reply = _naming(await hand_over(self._gateway, Arrival(transaction, hand, content, log)), transaction.id)
        sent = transaction.outgoing if reply.positive else None
        self._handed_on = sent and replace(sent, content=SpentContent(sent.content))  # frees memory and file
        name = {2: "accepted", 4: "deferred"}.get(reply.code // 100, "reject")
        log.event(name, stage="data" if name == "reject" else None, code=reply.code, reply=reply)
        return reply

    def unheard(self) -> None:
        """Learn that the sender of the last message accepted does not know of it, and will send it again."""
        if self._handed_on is not None:
            self._log.event("unheard", id=self._handed_on.id)
            note_unheard(self._gateway, self._handed_on)

    def spoiled(self, reply: Reply) -> Reply:
        """End a transaction whose message came in but cannot be accepted, for the listener's reason."""
        transaction = self._transaction
        if transaction is not None:
            reply = _naming(reply, transaction.id)
            if transaction.examination is not None:
                transaction.examination.cancel()
        self._refuse(reply, "data")
        self._transaction = None
        return reply

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

    def _refuse(self, reply: Reply, stage: str, **fields: object) -> Reply:
        log = self._transaction.log if self._transaction else self._log
        log.event("reject", stage=stage, helo=self._helo or None, code=reply.code, reply=reply, **fields)
        return reply


def _naming(reply: Reply, id: str) -> Reply:
    """Give a reply to a message with its id, if it has none: a refused sender quotes it, and the log is found by it."""
    if id in reply.text:
        return reply
    first, separator, rest = reply.text.partition("\n")
    return replace(reply, text=f"{first}, id {id}{separator}{rest}")
