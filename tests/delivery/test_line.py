"""The shell around the state machine: when exactly a message may have been delivered."""

from collections.abc import Iterable, Iterator

import pytest

from forwarder.delivery.line import Line, Load
from forwarder.delivery.route import Target
from forwarder.delivery.settings import Timeouts
from forwarder.model.address import parse_mailbox
from forwarder.model.envelope import MailOptions, Recipient, Tls
from forwarder.model.outcome import Verdict
from forwarder.ports import ConnectionLost
from forwarder.smtp.client import Client, Decided, TlsUse, Transaction

SMALL = [b"x\r\n"]
LARGE = [b"x" * 65_534 + b"\r\n"] * 3


class FakeConnection:
    """Says what it was given, one piece for each read; breaks at the write of that number."""

    tls: Tls | None = None
    ended = False

    def __init__(self, says: list[bytes], breaks_at: int, last_words: bytes = b"") -> None:
        self.says = says
        self.last_words = last_words
        self.breaks_at = breaks_at
        self.written: list[bytes] = []
        self.closed = False

    async def read(self, timeout: float) -> bytes:
        if not self.says and self.last_words:
            said, self.last_words = self.last_words, b""
            return said
        return self.says.pop(0) if self.says else b""

    async def write(self, pieces: Iterable[bytes], timeout: float) -> None:
        for piece in pieces:
            if len(self.written) == self.breaks_at:
                raise ConnectionLost("connection reset")
            self.written.append(piece)

    async def start_tls(self, host: str, timeout: float) -> None:
        raise ConnectionLost("the TLS handshake failed")

    async def close(self) -> None:
        self.closed = True


SAYS = [b"220 hop\r\n", b"250-hop\r\n250 PIPELINING\r\n", b"250 a\r\n250 b\r\n354 c\r\n"]
BEFORE_CONTENT = 2  # writes: EHLO, and the group with DATA


async def carried(connection: FakeConnection, pieces: list[bytes]) -> tuple[Line, Decided]:
    line = Line(Target("hop", "192.0.2.1", 25), connection, Client("mx.test", TlsUse.OPPORTUNISTIC), Timeouts())
    decided: list[Decided] = []
    transaction = Transaction(None, (Recipient(parse_mailbox("a@x.test")),), MailOptions(), 1, False)
    await line.carry(Load(transaction, lambda: pieces, decided.append))
    (one,) = decided
    return line, one


@pytest.mark.parametrize(
    ("pieces", "breaks_at", "elsewhere"),
    [(SMALL, 0, True), (SMALL, 1, True), (SMALL, 2, False), (LARGE, 2, True), (LARGE, 4, True), (LARGE, 5, False)],
)
async def test_from_the_last_piece_on_it_may_be_delivered(pieces: list[bytes], breaks_at: int, elsewhere: bool) -> None:
    _, one = await carried(FakeConnection(list(SAYS), breaks_at), pieces)
    assert (one.outcome.verdict, one.elsewhere) == (Verdict.DEFERRED, elsewhere)
    assert ("not known whether" in one.outcome.reply.text) is not elsewhere


async def test_the_last_piece_alone_has_the_terminator() -> None:
    connection = FakeConnection([*SAYS, b"250 taken\r\n"], -1)
    line, one = await carried(connection, LARGE)
    assert one.outcome.verdict is Verdict.DELIVERED
    assert connection.written[BEFORE_CONTENT:] == [*LARGE, b".\r\n"]
    assert line.client.idle


@pytest.mark.parametrize("breaks_at", [3, 5])
async def test_what_was_said_before_hanging_up_counts(breaks_at: int) -> None:
    connection = FakeConnection(list(SAYS), breaks_at, last_words=b"552 5.3.4 too big\r\n")
    _, one = await carried(connection, LARGE)
    assert (one.outcome.verdict, str(one.outcome.reply)) == (Verdict.REFUSED, "552 5.3.4 too big")


async def test_a_failed_handshake_is_told_apart() -> None:
    starttls = [b"220 hop\r\n", b"250-hop\r\n250 STARTTLS\r\n", b"220 go\r\n"]
    line, one = await carried(FakeConnection(starttls, -1), SMALL)
    assert (line.handshake_failed, one.elsewhere) == (True, True)
    line, _ = await carried(FakeConnection([b"220 hop\r\n"], -1), SMALL)
    assert not line.handshake_failed


async def test_unreadable_content_is_raised_and_never_ended() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise OSError(5, "Input/output error")

    connection = FakeConnection(list(SAYS), -1)
    line = Line(Target("hop", "192.0.2.1", 25), connection, Client("mx.test", TlsUse.NEVER), Timeouts())
    transaction = Transaction(None, (Recipient(parse_mailbox("a@x.test")),), MailOptions(), 1, False)
    with pytest.raises(OSError, match="Input/output"):
        await line.carry(Load(transaction, broken, lambda _: None))
    assert not any(piece.endswith(b".\r\n") for piece in connection.written[BEFORE_CONTENT:])
    assert not line.client.idle


@pytest.mark.parametrize(
    ("says", "quits"), [([*SAYS, b"250 taken\r\n", b"221 bye\r\n"], True), (list(SAYS[:1]), False)]
)
async def test_quit_is_said_where_it_makes_sense(says: list[bytes], quits: bool) -> None:
    connection = FakeConnection(says, -1)
    line, _ = await carried(connection, SMALL)
    await line.hang_up()
    assert (connection.written[-1] == b"QUIT\r\n") is quits
    assert connection.closed
