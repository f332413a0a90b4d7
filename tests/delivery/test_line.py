"""The shell around the state machine: when exactly a message may have been delivered."""

import math
from collections.abc import Iterable, Iterator

import pytest

from forwarder.delivery.line import Line, Load
from forwarder.delivery.route import Target
from forwarder.delivery.settings import Timeouts
from forwarder.model.address import parse_mailbox
from forwarder.model.envelope import MailOptions, Recipient, Tls
from forwarder.model.outcome import Verdict
from forwarder.ports import ConnectionLost, TimedOut
from forwarder.smtp.client import Client, Decided, TlsUse, Transaction
from tests.fakes import FakeClock

TARGET = Target("hop", "192.0.2.1", 25)
SMALL = [b"x\r\n"]
LARGE = [b"x" * 65_534 + b"\r\n"] * 3


class FakeConnection:
    """Says what it was given, one piece for each read; breaks at the write of that number.

    Each read, and each piece written, takes `seconds` of its clock."""

    tls: Tls | None = None
    ended = False

    def __init__(self, says: list[bytes], breaks_at: int, last_words: bytes = b"") -> None:
        self.says = says
        self.last_words = last_words
        self.breaks_at = breaks_at
        self.written: list[bytes] = []
        self.closed = False
        self.clock = FakeClock()
        self.seconds = 0.0
        self.patience: list[float] = []

    async def read(self, timeout: float) -> bytes:
        self.patience.append(timeout)
        self.clock.advance(min(self.seconds, timeout))
        if timeout < self.seconds:
            raise TimedOut("timed out")
        if not self.says and self.last_words:
            said, self.last_words = self.last_words, b""
            return said
        return self.says.pop(0) if self.says else b""

    async def write(self, pieces: Iterable[bytes], timeout: float) -> None:
        for piece in pieces:
            if len(self.written) == self.breaks_at:
                raise ConnectionLost("connection reset")
            self.clock.advance(self.seconds)
            self.written.append(piece)

    async def start_tls(self, host: str, timeout: float) -> None:
        raise ConnectionLost("the TLS handshake failed")

    async def close(self) -> None:
        self.closed = True


SAYS = [b"220 hop\r\n", b"250-hop\r\n250 PIPELINING\r\n", b"250 a\r\n250 b\r\n354 c\r\n"]
BEFORE_CONTENT = 2  # writes: EHLO, and the group with DATA


async def carried(
    connection: FakeConnection, pieces: list[bytes], seconds: float = math.inf, timeouts: Timeouts | None = None
) -> tuple[Line, Decided]:
    client = Client("mx.test", TlsUse.OPPORTUNISTIC)
    line = Line(TARGET, connection, client, timeouts or Timeouts(), connection.clock)
    decided: list[Decided] = []
    transaction = Transaction(None, (Recipient(parse_mailbox("a@x.test")),), MailOptions(), 1, False)
    await line.carry(Load(transaction, lambda: pieces, decided.append, connection.clock.monotonic() + seconds))
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
    line = Line(TARGET, connection, Client("mx.test", TlsUse.NEVER), Timeouts(), connection.clock)
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


def trickled(*says: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in b"".join(says)]


STAGES = Timeouts(greeting=100, command=40, data=30, content=20, dot=50)


class TestTimeOuts:
    async def test_one_is_for_the_whole_reply(self) -> None:
        connection = FakeConnection(trickled(b"220-hop\r\n", b"220 hop\r\n"), -1)
        connection.seconds = 10
        _, one = await carried(connection, SMALL, timeouts=STAGES)
        assert connection.patience == [100 - 10 * n for n in range(10)]
        assert (one.outcome.verdict, one.elsewhere) == (Verdict.DEFERRED, True)
        assert one.outcome.reply.text == "hop[192.0.2.1]:25: timed out after 100 s while waiting for the greeting"

    async def test_each_reply_has_its_own(self) -> None:
        """Also those of one stage."""
        recipients = [b"250 a\r\n", b"250 b\r\n", b"250 c\r\n354", b" d\r\n", b"250 taken\r\n"]
        connection = FakeConnection([SAYS[0], SAYS[1], *recipients], -1)
        connection.seconds = 10
        line = Line(TARGET, connection, Client("mx.test", TlsUse.NEVER), STAGES, connection.clock)
        two = tuple(Recipient(parse_mailbox(to)) for to in ("a@x.test", "b@x.test"))
        decided: list[Decided] = []
        await line.carry(Load(Transaction(None, two, MailOptions(), 1, False), lambda: SMALL, decided.append))
        assert connection.patience == [100, 40, 40, 40, 40, 30, 50]
        assert [one.outcome.verdict for one in decided] == [Verdict.DELIVERED] * 2

    async def test_the_next_message_has_its_own(self) -> None:
        connection = FakeConnection([*SAYS, b"250 taken\r\n"], -1)
        line, _ = await carried(connection, SMALL, timeouts=STAGES)
        connection.clock.advance(1000)
        connection.patience.clear()
        connection.says += [SAYS[2], b"250 taken\r\n"]
        decided: list[Decided] = []
        one = Transaction(None, (Recipient(parse_mailbox("a@x.test")),), MailOptions(), 1, False)
        await line.carry(Load(one, lambda: SMALL, decided.append))
        assert (connection.patience, decided[0].outcome.verdict) == ([40, 50], Verdict.DELIVERED)

    async def test_all_together_have_one(self) -> None:
        connection = FakeConnection(list(SAYS), -1)
        connection.seconds = 10
        _, one = await carried(connection, SMALL, seconds=25, timeouts=STAGES)
        assert connection.patience == [25, 5]  # EHLO took its time as well
        assert "the attempt took longer than 3600 s" in one.outcome.reply.text

    async def test_so_has_content_whose_every_block_is_taken_in_time(self) -> None:
        connection = FakeConnection([*SAYS, b"250 taken\r\n"], -1)
        connection.seconds = 10
        _, one = await carried(connection, [b"x" * 1_000_000], seconds=100, timeouts=STAGES)
        assert (one.outcome.verdict, one.elsewhere) == (Verdict.DEFERRED, True)
        assert "the attempt took longer" in one.outcome.reply.text
        assert "not known whether" not in one.outcome.reply.text
        assert len(connection.written) < BEFORE_CONTENT + 10

    async def test_content_goes_in_blocks(self) -> None:
        connection = FakeConnection([*SAYS, b"250 taken\r\n"], -1)
        await carried(connection, [b"x" * 1_048_576, b"\r\n"])
        assert max(map(len, connection.written)) <= 2 * 65_536
        assert b"".join(connection.written[BEFORE_CONTENT:]) == b"x" * 1_048_576 + b"\r\n.\r\n"
