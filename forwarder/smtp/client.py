"""The client's side of one SMTP connection as a state machine without sockets (RFC 5321, 2920, 3207, 3461).

Theory of operation. A connection is a line of steps. `_plan` holds the steps still to be sent, `_awaited` those sent
whose replies are outstanding, in order: SMTP answers every command once, in order, so each reply belongs to
`_awaited[0]`, and `_ON_REPLY` says which method takes it. A method decides recipients, plans further steps or ends the
connection; then `_send` moves steps from the plan to the wire: as many as may go together when PIPELINING is offered,
up to and with DATA (RFC 2920 3.1), otherwise one. So both ways of talking are one machine.

    GREETING → EHLO (→ HELO) (→ STARTTLS → HANDSHAKE → EHLO) → idle
    idle → (RSET) → MAIL → RCPT × n → DATA → CONTENT → DOT → idle          QUIT at any idle moment

Events in: `begin`, `receive`, `secured`, `dot_sent`, `lost`, `leave`. Each gives the commands that the shell has to
carry out in order: octets to send, a handshake, the content, and `Decided`, exactly one for each recipient. `stage`
says what is waited for, which is also the time-out that applies, anew with each reply that is complete (`answered`
counts them) and not with each octet; it is None when nothing is waited for. `over` says that the
connection has to be closed.

`Decided.elsewhere` says that the next hop took nothing over and that another host may be asked. After the last dot
was sent nobody can know, so the recipient is deferred and must not be offered to another host in the same attempt.
On a connection used again it is said of everything that happens before MAIL is answered: that speaks of the connection.
So does an offer heard before: a message that does not fit it is refused by an offer of its own time only (`outdated`).

What a server says in greeting, EHLO and STARTTLS is about us as a client and never refuses a message for good, but
for "521" (RFC 7504 3): a server that takes no mail at all. Nothing that a server sends makes a method raise.
Left out on purpose: AUTH, CHUNKING, REQUIRETLS, and content that is altered to suit a server.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from forwarder.model.address import Address
from forwarder.model.envelope import Body, MailOptions, Recipient
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Class, Reply
from forwarder.smtp.answers import AnswerError, Answers
from forwarder.smtp.ehlo import NOTHING, Extension, Offer, parse_offer


class TlsUse(Enum):
    """When a connection is encrypted."""

    NEVER = "never"  # used when a handshake has failed and clear text will do
    OPPORTUNISTIC = "opportunistic"  # where it is offered
    REQUIRE = "require"  # or no mail is handed over


class Stage(Enum):
    """What is waited for; each has a time-out of its own (RFC 5321 4.5.3.2)."""

    GREETING = "the greeting"
    EHLO = "the reply to EHLO"
    HELO = "the reply to HELO"
    STARTTLS = "the reply to STARTTLS"
    HANDSHAKE = "the TLS handshake"
    RSET = "the reply to RSET"
    MAIL = "the reply to MAIL"
    RCPT = "the reply to RCPT"
    DATA = "the reply to DATA"
    CONTENT = "the content to be taken"
    DOT = "the reply to the message"
    LONE_DOT = "the reply to an empty message"
    QUIT = "the reply to QUIT"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message for one connection. `size` counts all octets, `eight_bit` says whether any is above 127, and
    `eight_bit_header` whether one of those is in the header section."""

    sender: Address | None
    recipients: tuple[Recipient, ...]
    options: MailOptions
    size: int
    eight_bit: bool
    eight_bit_header: bool = False


@dataclass(frozen=True, slots=True)
class Send:
    """Send these octets."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class StartTls:
    """Drop what was read ahead, shake hands, then call `secured` or `lost`."""


@dataclass(frozen=True, slots=True)
class SendContent:
    """Send the content with dots doubled and its terminator; call `dot_sent` before the terminator goes out."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The outcome for the recipient of that index."""

    recipient: int
    outcome: Outcome
    elsewhere: bool = False


Command: TypeAlias = Send | StartTls | SendContent | Decided


@dataclass(frozen=True, slots=True)
class _Step:
    stage: Stage
    line: bytes = b""
    recipient: int = -1


_GROUPED = frozenset({Stage.RSET, Stage.MAIL, Stage.RCPT})  # RFC 2920 3.1: others end a group
_VERDICTS = {
    Class.SUCCESS: Verdict.DELIVERED,
    Class.CONTINUE: Verdict.DEFERRED,
    Class.TEMPORARY: Verdict.DEFERRED,
    Class.PERMANENT: Verdict.REFUSED,
}
_NO_MAIL_HERE = 521  # RFC 7504 3
_CONTROL = re.compile(r"[\0-\x1f\x7f]")


class Client:
    """One connection, from its greeting to its end. `name` is what we call ourselves in EHLO."""

    def __init__(self, name: str, tls: TlsUse) -> None:
        self.over = False
        self.mail_answered = False
        self.outdated = False
        self.answered = 0
        self.offer: Offer = NOTHING
        self._name = name
        self._tls = tls
        self._secured = False
        self._ready = False
        self._used_again = False
        self._dirty = False
        self._answers = Answers()
        self._plan: deque[_Step] = deque()
        self._awaited: deque[_Step] = deque([_Step(Stage.GREETING)])
        self._out: list[Command] = []
        self._transaction: Transaction | None = None
        self._undecided: dict[int, None] = {}
        self._accepted: list[int] = []
        self._mail_refusal: Reply | None = None

    @property
    def stage(self) -> Stage | None:
        """What is waited for; None when it is our turn."""
        return self._awaited[0].stage if self._awaited and not self.over else None

    @property
    def idle(self) -> bool:
        """Whether a further transaction may begin."""
        # A server that answers what was not asked would have its next replies taken for others.
        at_rest = not (self.over or self._awaited or self._undecided or self._answers.partial)
        return self._ready and at_rest

    # Events

    def begin(self, transaction: Transaction) -> list[Command]:
        """Hand a transaction in, at the start or when `idle`; it starts as soon as the session is ready."""
        self._transaction = transaction
        self._undecided = dict.fromkeys(range(len(transaction.recipients)))
        self._accepted = []
        self._mail_refusal = None
        self.mail_answered = False
        self._used_again = self._ready
        if self._ready:
            self._start()
        return self._commands()

    def receive(self, octets: bytes) -> list[Command]:
        """Take octets that arrived."""
        self._answers.feed(octets)
        try:
            # In CONTENT the next reply belongs to the dot, which is not sent yet: it waits until then.
            while self.stage not in (None, Stage.CONTENT, Stage.HANDSHAKE) and (reply := self._answers.next()):
                self._on_reply(reply)
                self._send()
        except AnswerError as error:
            self._end(_local(451, "4.5.0", str(error)))
        return self._commands()

    def secured(self) -> list[Command]:
        """Go on after the handshake: everything known of the server is forgotten (RFC 3207 4.2)."""
        self._awaited.popleft()
        self._secured = True
        self._answers = Answers()
        self._hello()
        return self._commands()

    def dot_sent(self) -> None:
        """Note that from here on the message may be delivered, whatever happens. Gives nothing: `receive` follows."""
        self._awaited[0] = _Step(Stage.DOT)

    def lost(self, reason: str) -> list[Command]:
        """End: the connection failed or timed out."""
        if self.stage in (Stage.CONTENT, Stage.DOT):
            self._heed_early_reply()
        self._end(_local(451, "4.4.2", reason))
        return self._commands()

    def leave(self) -> list[Command]:
        """Say goodbye, when `idle`."""
        self._plan.append(_Step(Stage.QUIT, b"QUIT"))
        return self._commands()

    # The line of steps

    def _commands(self) -> list[Command]:
        self._send()
        commands, self._out = self._out, []
        return commands

    def _send(self) -> None:
        """Move steps from the plan to the wire, as far as they may go now."""
        lines = []
        while self._plan and not self.over and self._may_go(self._plan[0]):
            step = self._plan.popleft()
            lines.append(step.line + b"\r\n")
            self._awaited.append(step)
        if lines:
            self._out.append(Send(b"".join(lines)))

    def _may_go(self, step: _Step) -> bool:
        if not self._awaited:
            return True
        return Extension.PIPELINING in self.offer and all(sent.stage in _GROUPED for sent in self._awaited)

    def _on_reply(self, reply: Reply) -> None:
        step = self._awaited[0]
        if reply.code == 421 and step.stage is not Stage.QUIT:  # RFC 5321 3.8: may answer any command
            self._end(reply, remote=True)
            return
        self._awaited.popleft()
        self.answered += 1
        _ON_REPLY[step.stage](self, reply, step)

    # The session

    def _hello(self) -> None:
        self._plan.append(_Step(Stage.EHLO, _line(["EHLO", self._name])))

    def _on_greeting(self, reply: Reply, _: _Step) -> None:
        if reply.positive:
            self._hello()
        else:
            self._end(reply, remote=True)

    def _on_ehlo(self, reply: Reply, _: _Step) -> None:
        if reply.kind is Class.PERMANENT and not self._secured:  # RFC 5321 3.2
            self._plan.append(_Step(Stage.HELO, _line(["HELO", self._name])))
        elif not reply.positive:
            self._end(reply, remote=True)
        else:
            self.offer = parse_offer(reply.text)
            self._offered()

    def _on_helo(self, reply: Reply, _: _Step) -> None:
        if reply.positive:
            self._offered()
        else:
            self._end(reply, remote=True)

    def _offered(self) -> None:
        if self._secured or self._tls is TlsUse.NEVER:
            self._get_ready()
        elif Extension.STARTTLS in self.offer:
            self._plan.append(_Step(Stage.STARTTLS, b"STARTTLS"))
        else:
            self._go_on_in_clear(_local(451, "4.7.5", "TLS is required, but the next hop does not offer it"))

    def _on_starttls(self, reply: Reply, _: _Step) -> None:
        if not reply.positive:
            refusal = f"TLS is required, but the next hop refused STARTTLS: {reply}"
            self._go_on_in_clear(_local(451, "4.7.5", refusal))
        elif self._answers.partial:
            # Sent in clear by whoever sits in between, to be taken as said under TLS (RFC 3207 6).
            self._end(_local(451, "4.7.5", "the next hop sent more in clear text after its reply to STARTTLS"))
        else:
            self._awaited.append(_Step(Stage.HANDSHAKE))
            self._out.append(StartTls())

    def _go_on_in_clear(self, refusal: Reply) -> None:
        if self._tls is TlsUse.REQUIRE:
            self._end(refusal)
        else:
            self._get_ready()

    def _get_ready(self) -> None:
        self._ready = True
        if self._transaction:
            self._start()

    def _on_quit(self, _: Reply, __: _Step) -> None:
        self.over = True

    # The transaction

    def _start(self) -> None:
        transaction = self._transaction
        assert transaction is not None
        refusals = _refusals(transaction, self.offer)
        if refusals and self._used_again:
            self.outdated = True
            self._defer(_local(451, "4.4.2", "the next hop was asked long ago what it offers"), elsewhere=True)
            return
        for index, refusal in refusals.items():
            self._decide(index, refusal)
        if self._undecided:
            self._plan.extend(_steps(transaction, self.offer, self._undecided, self._dirty))
            self._dirty = True

    def _on_rset(self, reply: Reply, _: _Step) -> None:
        if not reply.positive:
            self._end(_senseless(reply, "RSET"))

    def _on_mail(self, reply: Reply, _: _Step) -> None:
        self.mail_answered = True
        if reply.positive:
            return
        self._mail_refusal = reply  # replies to a pipelined RCPT and DATA follow and mean nothing
        self._plan.clear()
        self._decide_all(reply, remote=True)

    def _on_rcpt(self, reply: Reply, step: _Step) -> None:
        if self._mail_refusal:
            return
        if reply.positive:
            self._accepted.append(step.recipient)
        else:
            self._decide(step.recipient, reply, remote=True)
            if not self._undecided:
                self._plan.clear()  # without PIPELINING DATA has not been sent yet

    def _on_data(self, reply: Reply, _: _Step) -> None:
        if reply.kind is Class.CONTINUE and self._accepted:
            self._awaited.append(_Step(Stage.CONTENT))
            self._out.append(SendContent())
        elif reply.kind is Class.CONTINUE:
            self._plan.append(_Step(Stage.LONE_DOT, b"."))  # RFC 2920 3.1: no valid recipients, yet 354
        elif reply.positive:
            self._end(_senseless(reply, "DATA"))
        else:
            self._decide_all(reply, remote=True)

    def _on_dot(self, reply: Reply, _: _Step) -> None:
        if reply.kind is Class.CONTINUE:
            self._end(_senseless(reply, "the message"), unknown=True)
            return
        self._decide_all(reply, remote=True)
        self._dirty = False  # RFC 5321 4.1.1.4: whatever the reply, the server has forgotten the transaction

    def _heed_early_reply(self) -> None:
        """Take a refusal that came while the content was being sent, before the server hung up."""
        try:
            reply = self._answers.next()
        except AnswerError:
            return
        if reply and reply.kind in (Class.TEMPORARY, Class.PERMANENT):
            self._decide_all(reply, remote=True)

    def _on_lone_dot(self, _: Reply, __: _Step) -> None:
        """Whatever it says: every recipient was decided before."""

    # Decisions

    def _decide(self, index: int, reply: Reply, *, remote: bool = False) -> None:
        del self._undecided[index]
        self._out.append(Decided(index, Outcome(_VERDICTS[reply.kind], reply, remote=remote)))

    def _decide_all(self, reply: Reply, *, remote: bool = False) -> None:
        for index in list(self._undecided):
            self._decide(index, reply, remote=remote)

    def _end(self, reply: Reply, *, remote: bool = False, unknown: bool = False) -> None:
        """Give the connection up and defer whoever is undecided."""
        dot_sent = unknown or self.stage is Stage.DOT
        if dot_sent and not remote:
            text = f"{reply.text}, after the message was sent: it is not known whether it was delivered"
            reply = _local(reply.code, reply.enhanced, text)
        before_mail = not self._ready or (self._used_again and not self.mail_answered)
        # 421 4.7.x is about how much we send: asking its neighbour instead would make it worse.
        elsewhere = before_mail or not (dot_sent or reply.enhanced.startswith("4.7."))
        self._defer(reply, remote=remote, elsewhere=elsewhere)
        self.over = True
        self._awaited.clear()
        self._plan.clear()

    def _defer(self, reply: Reply, *, elsewhere: bool, remote: bool = False) -> None:
        verdict = Verdict.REFUSED if reply.code == _NO_MAIL_HERE else Verdict.DEFERRED
        for index in self._undecided:
            self._out.append(Decided(index, Outcome(verdict, reply, remote=remote), elsewhere))
        self._undecided.clear()


_ON_REPLY: dict[Stage, Callable[[Client, Reply, _Step], None]] = {
    Stage.GREETING: Client._on_greeting,
    Stage.EHLO: Client._on_ehlo,
    Stage.HELO: Client._on_helo,
    Stage.STARTTLS: Client._on_starttls,
    Stage.RSET: Client._on_rset,
    Stage.MAIL: Client._on_mail,
    Stage.RCPT: Client._on_rcpt,
    Stage.DATA: Client._on_data,
    Stage.DOT: Client._on_dot,
    Stage.LONE_DOT: Client._on_lone_dot,
    Stage.QUIT: Client._on_quit,
}


def _local(code: int, enhanced: str, text: str) -> Reply:
    return Reply(code, enhanced, text)


def _senseless(reply: Reply, command: str) -> Reply:
    return _local(451, "4.5.0", f"the next hop answered {command} with {reply.code}, which makes no sense")


def _refusals(transaction: Transaction, offer: Offer) -> dict[int, Reply]:
    """Give the recipients that a server which offers this need not be asked about, with the reason."""
    if refusal := _unfit(transaction, offer):
        return dict.fromkeys(range(len(transaction.recipients)), refusal)
    if Extension.SMTPUTF8 in offer:
        return {}
    refusal = _local(553, "5.6.7", "the next hop does not take addresses in UTF-8")
    return {n: refusal for n, one in enumerate(transaction.recipients) if not one.address.is_ascii}


def _unfit(transaction: Transaction, offer: Offer) -> Reply | None:
    """Say why the message cannot go through a server that offers this, before it is asked."""
    if 0 < offer.size_limit < transaction.size:
        # RFC 1870 6.1
        text = f"the message has {transaction.size} octets, the next hop takes {offer.size_limit}"
        return _local(552, "5.3.4", text)
    if transaction.eight_bit and Extension.EIGHT_BIT_MIME not in offer:
        # RFC 6152 3: convert or return; converting would break the sender's signature
        return _local(554, "5.6.3", "the message has 8-bit content, which the next hop does not take (no 8BITMIME)")
    if Extension.SMTPUTF8 not in offer:
        if transaction.sender and not transaction.sender.is_ascii:
            return _local(550, "5.6.7", "the sender's address is in UTF-8, which the next hop does not take")
        if transaction.options.smtputf8 and transaction.eight_bit_header:
            return _local(550, "5.6.7", "the message has headers in UTF-8, which the next hop does not take")
    return None


def _steps(transaction: Transaction, offer: Offer, recipients: Iterable[int], reset: bool) -> list[_Step]:
    steps = [_Step(Stage.RSET, b"RSET")] if reset else []
    steps.append(_Step(Stage.MAIL, _mail(transaction, offer)))
    steps += [_Step(Stage.RCPT, _rcpt(transaction.recipients[index], offer), index) for index in recipients]
    return [*steps, _Step(Stage.DATA, b"DATA")]


def _mail(transaction: Transaction, offer: Offer) -> bytes:
    options = transaction.options
    words = [f"MAIL FROM:<{transaction.sender or ''}>"]
    if Extension.SIZE in offer:
        words.append(f"SIZE={transaction.size}")
    if Extension.EIGHT_BIT_MIME in offer and (transaction.eight_bit or options.body is Body.EIGHT_BIT):
        words.append("BODY=8BITMIME")
    if Extension.SMTPUTF8 in offer and _wants_utf8(transaction):
        words.append("SMTPUTF8")
    if Extension.DSN in offer:
        words += [f"RET={options.ret}"] if options.ret else []
        words += [f"ENVID={options.envid}"] if options.envid else []
    return _line(words)


def _wants_utf8(transaction: Transaction) -> bool:
    addresses = [recipient.address for recipient in transaction.recipients]
    addresses += [transaction.sender] if transaction.sender else []
    return transaction.options.smtputf8 or not all(address.is_ascii for address in addresses)


def _rcpt(recipient: Recipient, offer: Offer) -> bytes:
    words = [f"RCPT TO:<{recipient.address}>"]
    if Extension.DSN in offer:
        words += [f"NOTIFY={','.join(sorted(recipient.options.notify))}"] if recipient.options.notify else []
        words += [f"ORCPT={recipient.options.orcpt}"] if recipient.options.orcpt else []
    return _line(words)


def _line(words: Iterable[str]) -> bytes:
    """Give a command line; the last guard against a value that would end it (ValueError: ours is the fault)."""
    line = " ".join(words)
    if _CONTROL.search(line):
        raise ValueError("a control character in an SMTP command")
    return line.encode("utf-8")
