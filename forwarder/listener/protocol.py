"""One client's connection: reads commands and content, asks the session, writes its replies.

A subclass of aiosmtpd's `SMTP` that keeps its place in asyncio and replaces what a public mail server cannot live with:
commands are looked up in a table of ours (no inherited verb can be reached), content comes in pieces, no event of the
transport ever cancels the session's work, and every wait has an end. The state is that of the loop in `_converse`:

    connected → [PROXY header] → let in → silence → banner → (command → reply)* → closed

Replies are kept while further commands are at hand and written in one go (RFC 2920 3.2). What can fail: anything that
the session raises is reported and answered 451 without a word about it. Left out on purpose: AUTH and BDAT (refused),
and every decision about addresses and content, which are the session's.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, cast

from aiosmtpd.smtp import SMTP

from forwarder.listener.arrival import arrives
from forwarder.listener.commands import TOO_LONG, Command, read_command, refusal
from forwarder.listener.conversation import Conversation, Conversations
from forwarder.listener.handshake import failure
from forwarder.listener.inbox import Ended, Inbox, Interrupted, LineTooLong, TimedOut
from forwarder.listener.intake import Cut, Intake
from forwarder.listener.limits import TOO_MANY, Door, ListenerLimits, canonical_address
from forwarder.listener.proxy import read_proxy_header
from forwarder.model.envelope import Peer, Tls
from forwarder.model.faults import INTERNAL
from forwarder.model.message import Content
from forwarder.model.reply import Reply
from forwarder.smtp.replies import encode

EARLY = Reply(554, "5.5.0", "Wait for the greeting before you send", close=True)  # RFC 5321 3.1
NO_SESSION = Reply(421, "4.3.0", "Something went wrong here: try again later", close=True)
IDLE = Reply(421, "4.4.2", "Nothing came for too long", close=True)
SESSION_OVER = Reply(421, "4.7.0", "The session has lasted too long: connect again", close=True)
SHUTTING_DOWN = Reply(421, "4.3.2", "The service is being stopped: try again later", close=True)
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands in one session", close=True)
TOO_MANY_IDLE = Reply(421, "4.7.0", "Too many commands that lead nowhere", close=True)
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors", close=True)
TOO_MANY_AUTH = Reply(421, "4.7.0", "Too many attempts to log in", close=True)
LOST = Reply(451, "4.4.2", "The client went away in the middle of its message")
READY = Reply(220, "2.0.0", "Ready to start TLS")
NO_ARGUMENT = Reply(501, "5.5.4", "The command takes no argument")

_IDLE_VERBS = {b"NOOP", b"RSET", b"VRFY", b"HELP", b"EHLO", b"HELO"}
_BURST = 16  # replies that are kept at most, and commands carried out before other clients get a turn
_LINGER_TIME = 2.0  # seconds
_LINGER_OCTETS = 1 << 20
_FLUSH_TIME = 10.0  # seconds that a client has for reading the last reply

TlsSource = Callable[[], ssl.SSLContext | None]


def _ignore(*_: object) -> None:
    """Leave it unreported."""


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """What every connection of a listener has in common.

    `spill` is the directory for large messages. `tls` gives the context for a new handshake (so that a renewed
    certificate counts at once), None while there is none; without `tls` STARTTLS is not offered. The rest are
    told, always with the client's address: `report` of exceptions, which are our problem; `handshake_failed` of TLS
    handshakes that failed, which happens all day, and of the reason in words; `refused` of clients that were turned
    away for the number of their connections, once a minute each, and how often since the last time.
    """

    spill: Path
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    tls: TlsSource | None = None
    proxy_protocol: bool = False
    report: Callable[[BaseException, str], None] = _ignore
    handshake_failed: Callable[[str, str], None] = _ignore
    refused: Callable[[str, int], None] = _ignore


class SmtpConnection(SMTP):
    """Made for each client; lives until its handler has ended. `members` holds the living ones, who share `turns`."""

    def __init__(
        self,
        conversations: Conversations,
        options: ListenerOptions,
        door: Door,
        members: "set[SmtpConnection]",
        turns: asyncio.Lock,
    ) -> None:
        # Not SMTP's own: it inspects all members for each client (1 ms) and sets up what is replaced here.
        asyncio.StreamReaderProtocol.__init__(self, None, loop=asyncio.get_running_loop())  # type: ignore[arg-type]
        self._conversations = conversations
        self._options = options
        self._limits = options.limits
        self._door = door
        self._members = members
        self._turns = turns
        self._running = asyncio.get_running_loop()
        self._until = self._running.time() + self._limits.session_time
        self._client = ""  # its address, once it is known
        self._admitted: str | None = None
        self._secured = False
        self._draining = False
        self._prompting = False
        self._outgoing: list[bytes] = []
        self._commands = self._errors = self._idle_commands = self._auth_attempts = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._wire: asyncio.Transport
        self._inbox: Inbox
        self._talk: Conversation
        self.task: asyncio.Task[None] | None = None

    # Events of the transport. None of them cancels what the session is doing.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the client, or turn it away at once."""
        self._wire = cast("asyncio.Transport", transport)
        self._inbox = Inbox(self._running, self._wire, self._turns)
        peer = _peer(self._wire)
        if peer is None:  # it has gone again already
            self._wire.abort()
            return
        self._client = peer.address
        # As many here as there may be anywhere: no need to ask, and nothing more is spent on this one.
        if not self._options.proxy_protocol and len(self._members) >= self._limits.connections:
            self._turn_away(peer.address, TOO_MANY)
            self._wire.close()
            return
        self._members.add(self)
        self.task = self._running.create_task(self._handle(peer))

    def data_received(self, data: bytes) -> None:
        """Keep what came."""
        self._inbox.feed(data)

    def eof_received(self) -> bool:
        """Let what came before the end be answered; only clear text can stay half-open."""
        self._inbox.end()
        return not self._secured

    def connection_lost(self, error: Exception | None) -> None:
        """Let the handler find out at its next read."""
        self._inbox.end()
        self._writable.set()

    def pause_writing(self) -> None:
        """Hold back: the client does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._writable.set()

    def drain(self) -> None:
        """End the session between two transactions; at once if it is waiting for a command now."""
        self._draining = True
        if self._prompting and not self._talk.in_transaction:
            self._inbox.interrupt()

    # The connection's task.

    async def _handle(self, peer: Peer) -> None:
        try:
            await self._converse(peer)
        except Ended:
            pass
        except Exception as error:
            self._report(error)
        finally:
            self._close()

    async def _converse(self, peer: Peer) -> None:
        if self._options.proxy_protocol:
            client = await read_proxy_header(self._inbox, peer, self._limits.proxy_timeout)
            if client is None:
                return
            peer = client
            self._client = client.address
        if not await self._admit(peer.address):
            return
        reply: Reply | None = await self._greet(peer)
        while True:
            if reply is not None:
                self._say(reply)
                if reply.close:
                    await self._part(reply)
                    return
            reply = await self._step()

    async def _part(self, last: Reply) -> None:
        """Write the last reply. Whoever did not ask to end may still be sending: what comes is thrown away for a while,
        as closing at once would reset the connection and take the reply with it (RFC 1122 4.2.2.13).
        """
        await self._flush()
        if last.code == 221 or self._wire.is_closing() or not self._wire.can_write_eof():
            return
        with contextlib.suppress(OSError, TimedOut, Interrupted):  # OSError: the client has gone first
            self._wire.write_eof()
            await self._throw_away(_LINGER_OCTETS, self._running.time() + _LINGER_TIME)

    async def _throw_away(self, octets: int, deadline: float) -> None:
        while octets > 0:
            octets -= len(await self._inbox.piece(deadline - self._running.time()))

    async def _greet(self, peer: Peer) -> Reply:
        try:
            self._talk = self._conversations(peer)
            silent = await self._inbox.stays_silent(self._limits.banner_delay)
            return self._talk.greeting() if silent else self._talk.refused(EARLY, "connect")
        except Exception as error:
            self._report(error)
            return NO_SESSION

    async def _step(self) -> Reply | None:
        """Read one command and carry it out; None when its reply has been written already."""
        if (enough := self._enough()) is not None:
            return self._talk.refused(enough, "limit")
        command = await self._next_command()
        self._commands += 1
        if isinstance(command, Reply):
            return self._noted(command)
        self._idle_commands += command.verb in _IDLE_VERBS
        return await self._obey(command)

    def _noted(self, reply: Reply) -> Reply:
        """Let the session log why it ends, unless it is we who stop."""
        return self._talk.refused(reply, "command") if reply.close and reply is not SHUTTING_DOWN else reply

    async def _next_command(self) -> Command | Reply:
        if self._draining and not self._talk.in_transaction:
            return SHUTTING_DOWN
        await self._take_turns()
        left = self._until - self._running.time()
        try:
            self._prompting = True
            line = await self._inbox.line(self._limits.auth_line, min(left, self._limits.command_timeout))
        except Interrupted:
            return SHUTTING_DOWN
        except TimedOut:
            return SESSION_OVER if left < self._limits.command_timeout else IDLE
        except LineTooLong as error:
            return TOO_LONG if error.whole else Reply(TOO_LONG.code, TOO_LONG.enhanced, TOO_LONG.text, close=True)
        finally:
            self._prompting = False
        if len(line) > self._limits.command_line and line[:5].upper() != b"AUTH ":
            return TOO_LONG
        return read_command(line)

    async def _take_turns(self) -> None:
        """Write what is waiting unless another command is here already (RFC 2920 3.2).

        After a number of commands it is written all the same and other clients get a turn.
        """
        crowded = len(self._outgoing) >= _BURST
        if crowded or not self._inbox.has_line:
            await self._flush()
        if crowded:
            await asyncio.sleep(0)

    async def _obey(self, command: Command) -> Reply | None:
        verb = self._VERBS.get(command.verb)
        if verb is None:
            return self._noted(refusal(command.verb))
        try:
            return await verb(self, command.argument)
        except Ended:
            raise
        except Exception as error:
            self._report(error)
            return INTERNAL

    def _enough(self) -> Reply | None:
        """Give the last word for a session that leads nowhere. It comes after the reply that was due (RFC 5321 3.8):
        in place of that it would lose a verdict, and bring a message that was taken a second time.
        """
        for count, most, last in (
            (self._errors, self._limits.errors, TOO_MANY_ERRORS),
            (self._idle_commands, self._limits.idle_commands, TOO_MANY_IDLE),
            (self._commands, self._limits.commands, TOO_MANY_COMMANDS),
            (self._auth_attempts, self._limits.auth_attempts, TOO_MANY_AUTH),
        ):
            if count >= most:
                return last
        return None

    # Verbs.

    async def _helo(self, argument: bytes) -> Reply:
        return self._talk.helo(argument)

    async def _ehlo(self, argument: bytes) -> Reply:
        return self._talk.ehlo(argument, starttls=not self._secured and self._context() is not None)

    async def _mail(self, argument: bytes) -> Reply:
        return await self._talk.mail(argument)

    async def _rcpt(self, argument: bytes) -> Reply:
        return await self._talk.rcpt(argument)

    async def _data(self, argument: bytes) -> Reply | None:
        go_ahead = self._talk.data(argument)
        if go_ahead.code != 354:
            return go_ahead
        try:
            self._say(go_ahead)
            await self._flush()
            content = await self._receive()
        except Cut as cut:
            return self._talk.spoiled(cut.reply)
        except Ended:
            self._talk.spoiled(LOST)
            raise
        except asyncio.CancelledError:  # the session asks nothing more
            self._talk.spoiled(SHUTTING_DOWN)
            raise
        except Exception as error:
            # The rest of the message is still to come and must not be taken for commands: the connection ends.
            self._report(error)
            return self._talk.spoiled(Reply(INTERNAL.code, INTERNAL.enhanced, INTERNAL.text, close=True))
        return self._talk.spoiled(content) if isinstance(content, Reply) else await self._accept(content)

    async def _receive(self) -> Content | Reply:
        intake = Intake(self._limits, self._options.spill, self._talk.message_size)
        return await intake.receive(self._inbox, self._until, self._talk.arriving)

    async def _accept(self, content: Content) -> Reply | None:
        try:
            reply = await self._talk.accept(content)
        except Exception as error:
            self._report(error)
            return self._talk.spoiled(INTERNAL)
        if not reply.positive:
            return reply
        self._errors = self._idle_commands = 0
        await self._confirm(reply)
        return None

    async def _confirm(self, reply: Reply) -> None:
        """Write the reply to a message that was taken; let the session know if its sender will not learn of it."""
        heard = False
        try:
            self._say(reply)
            await self._flush()
            heard = await arrives(self._wire, self._inbox)
        finally:
            if not heard:
                self._talk.unheard()

    async def _rset(self, argument: bytes) -> Reply:
        return NO_ARGUMENT if argument else self._talk.rset()

    async def _noop(self, _: bytes) -> Reply:
        return self._talk.noop()

    async def _vrfy(self, argument: bytes) -> Reply:
        return self._talk.vrfy(argument)

    async def _help(self, _: bytes) -> Reply:
        return self._talk.help()

    async def _quit(self, argument: bytes) -> Reply:
        return NO_ARGUMENT if argument else self._talk.quit()

    async def _auth(self, _: bytes) -> Reply:
        """Refuse: nobody logs in here (RFC 4954 4)."""
        self._auth_attempts += 1
        if self._talk.in_transaction:
            return Reply(503, "5.5.1", "AUTH is not allowed within a transaction")
        if not self._secured:
            return Reply(538, "5.7.11", "Logging in needs encryption")
        return Reply(502, "5.5.1", "AUTH is not offered here")

    async def _starttls(self, argument: bytes) -> Reply | None:
        """Shake hands (RFC 3207 4); whatever came in clear text after the command is thrown away."""
        if argument:
            return NO_ARGUMENT
        if self._secured:
            return Reply(503, "5.5.1", "TLS is in use already")
        if self._talk.in_transaction:
            return Reply(503, "5.5.1", "STARTTLS is not allowed within a transaction")
        if self._options.tls is None:
            return Reply(502, "5.5.1", "STARTTLS is not offered here")
        context = self._context()
        if context is None:
            return Reply(454, "4.7.0", "TLS is not available now")
        await self._flush()
        self._inbox.discard()
        # No await until the TLS layer is in place: nothing in clear text can come in between.
        self._wire.write(encode(READY))
        self._talk.secured(await self._shake_hands(context))
        return None

    async def _shake_hands(self, context: ssl.SSLContext) -> Tls:
        limit = self._limits.handshake_timeout
        try:
            wire = await self._running.start_tls(
                self._wire, self, context, server_side=True, ssl_handshake_timeout=limit
            )
        except OSError as error:
            self._options.handshake_failed(self._client, failure(error))
            raise Ended from None
        if wire is None:  # the connection was lost meanwhile
            self._options.handshake_failed(self._client, failure(None))
            raise Ended
        self._secured = True
        self._wire = wire
        self._inbox.switch(wire)
        layer = wire.get_extra_info("ssl_object")
        return Tls(layer.version(), layer.cipher()[0])

    _VERBS: ClassVar[dict[bytes, Callable[["SmtpConnection", bytes], Awaitable[Reply | None]]]] = {
        b"HELO": _helo,
        b"EHLO": _ehlo,
        b"MAIL": _mail,
        b"RCPT": _rcpt,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"VRFY": _vrfy,
        b"HELP": _help,
        b"QUIT": _quit,
        b"AUTH": _auth,
        b"STARTTLS": _starttls,
    }

    # Parts.

    def _report(self, error: Exception) -> None:
        self._options.report(error, self._client)

    def _context(self) -> ssl.SSLContext | None:
        try:
            return self._options.tls() if self._options.tls else None
        except Exception as error:  # a bad certificate must not keep mail out: the session goes on in clear text
            self._report(error)
            return None

    async def _admit(self, address: str) -> bool:
        """Ask for a place, which is given up when the connection's task ends, however it ends."""
        try:
            refused = await self._door.doorkeeper.enter(address)
        except Exception as error:
            self._report(error)
            self._wire.write(encode(NO_SESSION))
            return False
        if refused is None:
            self._admitted = address
            return True
        self._turn_away(address, refused)
        return False

    def _turn_away(self, address: str, reply: Reply) -> None:
        self._wire.write(encode(reply))
        if count := self._door.turned_away.tell(address, self._running.time()):
            self._options.refused(address, count)

    def _say(self, reply: Reply) -> None:
        self._errors += reply.code >= 500
        self._outgoing.append(encode(reply))

    async def _flush(self) -> None:
        """Write what is waiting, and wait until the client has read enough of it."""
        if not self._outgoing or self._wire.is_closing():
            return
        octets = b"".join(self._outgoing)
        self._outgoing.clear()
        self._wire.write(octets)
        if not self._writable.is_set():
            try:
                await asyncio.wait_for(self._writable.wait(), self._limits.command_timeout)
            except TimeoutError:
                self._wire.abort()
                raise Ended from None

    def _close(self) -> None:
        self._members.discard(self)
        if self._admitted is not None:
            self._door.doorkeeper.leave(self._admitted)
        if self._wire.is_closing():
            return
        if self._wire.get_write_buffer_size():
            self._running.call_later(_FLUSH_TIME, self._wire.abort)
        self._wire.close()


def _peer(transport: asyncio.Transport) -> Peer | None:
    remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not remote or not local:
        return None
    return Peer(canonical_address(remote[0]), remote[1], canonical_address(local[0]))
