"""What the listener asks of a session: one reply per verb. `session.transaction.Session` is one."""

from collections.abc import Callable
from typing import Protocol

from forwarder.model.envelope import Peer, Tls
from forwarder.model.message import Content
from forwarder.model.reply import Reply


class Conversation(Protocol):
    """One client's session without sockets.

    Arguments are the octets after the verb and its space, without CRLF and without control characters. A reply with
    `close` ends the connection. Any method may raise: the client is told 451 and the exception is reported.
    """

    @property
    def message_size(self) -> int:
        """The largest message that is accepted, in octets."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a MAIL command is waiting for its message."""
        ...

    def greeting(self) -> Reply:
        """Answer the connection."""
        ...

    def helo(self, argument: bytes) -> Reply:
        """Answer HELO."""
        ...

    def ehlo(self, argument: bytes, *, starttls: bool) -> Reply:
        """Answer EHLO, with STARTTLS among the offers only if told so."""
        ...

    def secured(self, tls: Tls) -> None:
        """Forget what was said in clear text: a TLS layer is in use now."""
        ...

    async def mail(self, argument: bytes) -> Reply:
        """Answer MAIL."""
        ...

    async def rcpt(self, argument: bytes) -> Reply:
        """Answer RCPT."""
        ...

    def data(self, argument: bytes) -> Reply:
        """Answer DATA: 354, or why not."""
        ...

    def arriving(self, octets: bytes) -> None:
        """Take note of content while it arrives; `accept` or `spoiled` follows."""
        ...

    async def accept(self, content: Content) -> Reply:
        """Answer the dot. Never cancelled because the client went away. A positive answer does not close."""
        ...

    def unheard(self) -> None:
        """Learn that the reply to the last message, which was positive, could not be written, or not for sure: its
        sender will send it again.
        """
        ...

    def spoiled(self, reply: Reply) -> Reply:
        """End the transaction whose message came in but cannot be accepted; give the reply back."""
        ...

    def rset(self) -> Reply:
        """Answer RSET."""
        ...

    def noop(self) -> Reply:
        """Answer NOOP."""
        ...

    def vrfy(self, argument: bytes) -> Reply:
        """Answer VRFY."""
        ...

    def help(self) -> Reply:
        """Answer HELP."""
        ...

    def quit(self) -> Reply:
        """Answer QUIT."""
        ...

    def refused(self, reply: Reply, stage: str) -> Reply:
        """Take note of a refusal that the listener decided on; give the reply back."""
        ...


Conversations = Callable[[Peer], Conversation]
