"""A small SMTP server that keeps every message as it came: it stands in for the inbox that mail is forwarded to.

    mailbox = Maildir(Path("inbox"))
    async with Inbox(mailbox.take, {"full@inbox.example": "552 5.2.2 Full"}).serve("127.0.0.1") as (host, port): ...

    python -m deploy.demo.inbox --listen 127.0.0.1:2526 --maildir inbox

A message is stored octet for octet, with its CRLFs, in `new/` of a Maildir; its envelope lies beside it as
`envelopes/NAME.json` with the keys `from`, `to`, `helo` and `received`, so that nothing has to be put into the message.
Recipients that are named in `refusals` get that reply to RCPT. What takes a `Letter` gives the reply to the final dot,
so the server serves as a sink for measurements and as a scripted other end as well.

Can fail: `OSError` when the address is taken or the Maildir cannot be written (the client is told 451).

Left out on purpose: TLS, AUTH, limits and suspicion of any kind. It serves loopback.
"""

import argparse
import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

STORED = "250 2.0.0 Stored"
_END = b"\r\n.\r\n"  # RFC 5321 4.1.1.4
_KEYWORDS = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message with its envelope. `sender` is "" for the null sender; `octets` have their dots unstuffed."""

    helo: str
    sender: str
    recipients: tuple[str, ...]
    octets: bytes = field(repr=False)


Take = Callable[[Letter], str]


class Maildir:
    """A Maildir with a folder of envelopes beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        for name in ("tmp", "new", "cur", "envelopes"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def take(self, letter: Letter) -> str:
        """Store one letter; give the reply to its dot."""
        now = datetime.now(UTC)
        name = f"{now.timestamp():.6f}.{os.getpid()}_{next(self._numbers)}.inbox"
        envelope = {
            "from": letter.sender,
            "to": letter.recipients,
            "helo": letter.helo,
            "received": now.isoformat(timespec="seconds"),
        }
        (self.folder / "tmp" / name).write_bytes(letter.octets)
        (self.folder / "envelopes" / f"{name}.json").write_text(json.dumps(envelope, indent=2) + "\n", encoding="utf-8")
        (self.folder / "tmp" / name).rename(self.folder / "new" / name)
        return STORED

    def messages(self) -> list[Path]:
        """Give the files of all messages, oldest first."""
        return sorted((self.folder / "new").iterdir())

    def envelope(self, message: Path) -> dict[str, object]:
        """Give the envelope of one of `messages()`."""
        text = (self.folder / "envelopes" / f"{message.name}.json").read_text(encoding="utf-8")
        envelope: dict[str, object] = json.loads(text)
        return envelope


class Inbox:
    """The server: hands every letter to `take` and answers what that gives."""

    def __init__(self, take: Take, refusals: Mapping[str, str] | None = None, name: str = "inbox.example") -> None:
        self.take = take
        self.refusals = refusals or {}
        self.name = name

    @asynccontextmanager
    async def serve(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[tuple[str, int]]:
        """Serve on an address (port 0: a free one); give (host, port)."""
        connections: set[asyncio.Transport] = set()
        server = await asyncio.get_running_loop().create_server(lambda: _Session(self, connections), host, port)
        try:
            yield host, server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for connection in list(connections):
                connection.abort()
            await asyncio.sleep(0)  # the loop tells closed transports in its next turn
            await server.wait_closed()


class _Session(asyncio.Protocol):
    """One client. `_buffer` holds what has not been read as a command, or the message as far as it has come."""

    def __init__(self, inbox: Inbox, connections: set[asyncio.Transport]) -> None:
        self._inbox = inbox
        self._connections = connections
        self._buffer = bytearray()
        self._searched = 0
        self._in_data = False
        self._helo = ""
        self._open = False
        self._sender = ""
        self._recipients: list[str] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)
        self._reply(f"220 {self._inbox.name} ESMTP")

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._step():
            pass

    def _step(self) -> bool:
        """Read one command or one message from the buffer; say whether there was one."""
        if self._in_data:
            return self._read_message()
        line, found, rest = self._buffer.partition(b"\n")
        if not found or self._transport.is_closing():
            return False
        self._buffer = rest
        verb, _, argument = line.decode("utf-8", "replace").strip().partition(" ")
        self._command(verb.upper(), argument)
        return True

    def _command(self, verb: str, argument: str) -> None:
        match verb:
            case "EHLO" | "HELO":
                self._helo = argument
                self._reset()
                lines = (self._inbox.name, *_KEYWORDS) if verb == "EHLO" else (self._inbox.name,)
                self._reply(*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")
            case "MAIL" if not self._open:
                self._open, self._sender = True, _path(argument)
                self._reply("250 2.1.0 OK")
            case "RCPT" if self._open:
                self._recipient(_path(argument))
            case "DATA" if self._recipients:
                self._in_data, self._searched = True, 0
                self._buffer[:0] = b"\r\n"  # so that a message of a dot alone ends as any other
                self._reply("354 Go ahead")
            case "RSET" | "NOOP":
                self._reset(keep=verb == "NOOP")
                self._reply("250 2.0.0 OK")
            case "QUIT":
                self._reply("221 2.0.0 Bye")
                self._transport.close()
            case "MAIL" | "RCPT" | "DATA":
                self._reply("503 5.5.1 Bad sequence of commands")
            case _:
                self._reply("500 5.5.2 Unknown command")

    def _recipient(self, address: str) -> None:
        refusal = self._inbox.refusals.get(address)
        if refusal is None:
            self._recipients.append(address)
        self._reply(refusal or "250 2.1.5 OK")

    def _read_message(self) -> bool:
        end = self._buffer.find(_END, self._searched)
        if end < 0:
            self._searched = max(0, len(self._buffer) - len(_END) + 1)
            return False
        # RFC 5321 4.5.2: the first dot of a line was doubled
        octets = bytes(self._buffer[: end + 2]).replace(b"\r\n.", b"\r\n")[2:]
        del self._buffer[: end + len(_END)]
        letter = Letter(self._helo, self._sender, tuple(self._recipients), octets)
        self._in_data = False
        self._reset()
        try:
            self._reply(self._inbox.take(letter))
        except OSError as error:
            self._reply(f"451 4.3.0 Cannot store: {error.strerror}")
        return True

    def _reset(self, *, keep: bool = False) -> None:
        if not keep:
            self._open = False
            self._sender = ""
            self._recipients = []

    def _reply(self, *lines: str) -> None:
        self._transport.write("".join(f"{line}\r\n" for line in lines).encode())


def _path(argument: str) -> str:
    """Give the mailbox of `FROM:<a@b> SIZE=1` or `TO:<a@b>`."""
    return argument.partition("<")[2].rpartition(">")[0]


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "127.0.0.1", int(port)


def _refusal(text: str) -> tuple[str, str]:
    address, found, reply = text.partition("=")
    if not found:
        raise ValueError("ADDRESS=REPLY")
    return address, reply


async def _serve(arguments: argparse.Namespace) -> None:
    host, port = arguments.listen
    maildir = Maildir(arguments.maildir)
    async with Inbox(maildir.take, dict(arguments.refuse)).serve(host, port) as (host, port):
        print(f"SMTP on {host} port {port}, messages in {maildir.folder / 'new'}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Run it from the command line until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo.inbox", description="Keep every message as it came.")
    parser.add_argument("--listen", type=_endpoint, default="127.0.0.1:2526", metavar="HOST:PORT")
    parser.add_argument("--maildir", type=Path, default=Path("inbox"), metavar="FOLDER")
    parser.add_argument("--refuse", type=_refusal, action="append", default=[], metavar="ADDRESS=REPLY")
    try:
        asyncio.run(_serve(parser.parse_args()))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        raise SystemExit(f"inbox: {error}") from error


if __name__ == "__main__":
    main()
