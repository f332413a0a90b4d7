"""The demonstration's inbox keeps what it got, octet for octet."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from deploy.demo.inbox import Inbox, Letter, Maildir

ODD = b"Subject: odd\r\n\r\n.\r\n..\r\nbare\rcr, bare\nlf, \x00, \xff\r\n.\nend\r\n"


def stuffed(octets: bytes) -> bytes:
    return (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


async def talk(port: int, octets: bytes, *, split: int | None = None, replies: int) -> list[bytes]:
    """Send all octets (in pieces of `split`), close our side, and give the final lines of all replies."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for start in range(0, len(octets), split or len(octets)):
        writer.write(octets[start : start + (split or len(octets))])
        await writer.drain()
    lines: list[bytes] = []
    while len(lines) < replies:
        line = await reader.readline()
        assert line
        if line[3:4] == b" ":
            lines.append(line.strip())
    writer.close()
    await writer.wait_closed()
    return lines


@pytest.mark.parametrize("split", [None, 1, 7])
async def test_letters_are_kept_octet_for_octet(tmp_path: Path, split: int | None) -> None:
    maildir = Maildir(tmp_path / "box")
    async with Inbox(maildir.take).serve() as (_, port):
        one = b"MAIL FROM:<a@b.example> SIZE=10\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n"
        two = b"MAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n.\r\n"
        octets = b"EHLO me.example\r\n" + one + stuffed(ODD) + two + b"QUIT\r\n"
        replies = await talk(port, octets, split=split, replies=11)
    assert [reply[:3] for reply in replies] == [b"220", *[b"250"] * 4, b"354", *[b"250"] * 3, b"354", b"250"]
    first, second = maildir.messages()
    assert first.read_bytes() == ODD
    assert second.read_bytes() == b""
    envelope = maildir.envelope(first)
    assert (envelope["from"], envelope["to"], envelope["helo"]) == (
        "a@b.example",
        ["c@d.example", "e@f.example"],
        "me.example",
    )
    assert maildir.envelope(second)["from"] == ""


async def test_refusals_and_bad_sequences(tmp_path: Path) -> None:
    letters: list[Letter] = []

    def take(letter: Letter) -> str:
        letters.append(letter)
        return "554 5.7.1 No"

    async with Inbox(take, {"full@d.example": "552 5.2.2 Mailbox full"}).serve() as (_, port):
        octets = (
            b"RCPT TO:<a@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<full@d.example>\r\nDATA\r\nRSET\r\nRCPT TO:<a@b>\r\nWHAT\r\n"
        )
        replies = await talk(port, octets, replies=8)
        assert [reply[:9] for reply in replies[1:]] == [
            b"503 5.5.1",
            b"250 2.1.0",
            b"552 5.2.2",
            b"503 5.5.1",
            b"250 2.0.0",
            b"503 5.5.1",
            b"500 5.5.2",
        ]
        octets = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n" + stuffed(b"x\r\n")
        assert (await talk(port, octets, replies=6))[-1] == b"554 5.7.1 No"
    assert [letter.octets for letter in letters] == [b"x\r\n"]


async def test_a_maildir_that_cannot_be_written_is_told_to_the_client(tmp_path: Path) -> None:
    maildir = Maildir(tmp_path / "box")
    (tmp_path / "box" / "tmp").rmdir()
    async with Inbox(maildir.take).serve() as (_, port):
        octets = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\n"
        assert (await talk(port, octets, replies=6))[-1].startswith(b"451 4.3.0 ")


async def test_it_runs_as_a_module(tmp_path: Path) -> None:
    arguments = ["--listen", "127.0.0.1:0", "--maildir", str(tmp_path / "box"), "--refuse", "f@d=452 4.2.2 Full"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "deploy.demo.inbox", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        line = (await process.stdout.readline()).decode()
        port = int(line.split("port ")[1].split(",")[0])
        octets = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<f@d>\r\nRCPT TO:<c@d>\r\nDATA\r\nhello\r\n.\r\n"
        replies = await talk(port, octets, replies=7)
        assert replies[3] == b"452 4.2.2 Full"
        assert [path.read_bytes() for path in (tmp_path / "box" / "new").iterdir()] == [b"hello\r\n"]
    finally:
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 0
