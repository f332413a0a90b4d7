"""An SMTP client that sends exactly the octets it is given: no line ending is mended, only dots are stuffed.

`Client.send` is one transaction; everything lower is there for tests that want to misbehave. Replies are read
strictly: a line that is no reply line is an `AssertionError`, and so is the end of the connection in mid-reply.
"""

import re
import socket
import ssl
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from types import TracebackType
from typing import Self

from tests.lab.world import Host, World

_LINE = re.compile(rb"([2-5][0-9][0-9])([ -])([\t -\xff]*)\r\n")


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply: its code and the text of its lines, joined by "\\n"."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


def stuff(octets: bytes) -> bytes:
    """Give what follows 354 for this content, the final dot included (RFC 5321 4.5.2, 4.1.1.4)."""
    stuffed = octets.replace(b"\r\n.", b"\r\n..")
    if stuffed.startswith(b"."):
        stuffed = b"." + stuffed
    if stuffed and not stuffed.endswith(b"\r\n"):
        stuffed += b"\r\n"
    return stuffed + b".\r\n"


class Client:
    """One connection to a host, opened and greeted. `preface` goes before the greeting, such as a PROXY header."""

    def __init__(
        self, world: World, host: Host, source: Host | None = None, *, timeout: float = 20, preface: bytes = b""
    ) -> None:
        self._socket = world.connect(host, source, timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a write is a segment
        self._incoming = self._socket.makefile("rb")
        try:
            self.write(preface)
            self.greeting = self.read()
        except BaseException:  # nobody else can close what was never handed out
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connection without a word."""
        self._incoming.close()
        self._socket.close()

    def write(self, octets: bytes) -> None:
        """Send octets as they are."""
        self._socket.sendall(octets)

    def finish(self) -> None:
        """Close our half of the connection: nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> Answer:
        """Read one reply."""
        lines: list[str] = []
        while True:
            line = self._incoming.readline(10_000)
            match = _LINE.fullmatch(line)
            assert match is not None, f"not a reply line: {line!r} after {lines}"
            lines.append(match[3].decode("utf-8", "backslashreplace"))
            if match[2] == b" ":
                return Answer(int(match[1]), "\n".join(lines))

    def closed(self) -> bool:
        """Whether the server has ended the connection (waits for something to come)."""
        try:
            return self._incoming.read(1) == b""
        except ConnectionError:
            return True

    def command(self, line: str | bytes) -> Answer:
        """Send one command line and read the reply."""
        self.write((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.read()

    def ehlo(self, name: str = "client.test") -> list[str]:
        """Say EHLO; give the keywords."""
        answer = self.command(f"EHLO {name}")
        assert answer.code == 250, answer
        return answer.text.split("\n")[1:]

    def start_tls(self) -> None:
        """Say STARTTLS and shake hands, whatever the certificate."""
        answer = self.command("STARTTLS")
        assert answer.code == 220, answer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._incoming.close()
        self._socket = context.wrap_socket(self._socket)
        self._incoming = self._socket.makefile("rb")

    def send(self, sender: str, recipients: Sequence[str] | str, octets: bytes, options: str = "") -> Answer:
        """Send one message; give the first refusal, or the reply to the dot.

        A transaction that was refused before DATA is reset, so that the connection can go on.
        """
        answer = self.command(f"MAIL FROM:<{sender}>{options and ' ' + options}")
        for recipient in [recipients] if isinstance(recipients, str) else recipients:
            if answer.code == 250:
                answer = self.command(f"RCPT TO:<{recipient}>")
        if answer.code == 250:
            answer = self.command("DATA")
        if answer.code != 354:
            assert self.command("RSET").code == 250
            return answer
        self.write(stuff(octets))
        return self.read()


def proxy_v1(address: str) -> bytes:
    """Give the line of a load balancer that speaks for this client (PROXY protocol, version 1)."""
    client = ip_address(address)
    family, ours = ("TCP4", "192.0.2.25") if client.version == 4 else ("TCP6", "2001:db8::25")
    return f"PROXY {family} {client} {ours} 40000 25\r\n".encode()


def proxy_v2(address: str) -> bytes:
    """Give the same in the binary form (version 2)."""
    client = ip_address(address)
    family, ours = (0x11, "192.0.2.25") if client.version == 4 else (0x21, "2001:db8::25")
    addresses = client.packed + ip_address(ours).packed + struct.pack("!HH", 40_000, 25)
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, family, len(addresses)) + addresses


def send_once(world: World, host: Host, envelope: tuple[str, str], octets: bytes, source: Host | None = None) -> Answer:
    """Connect, send one message to one recipient, quit; `envelope` is (sender, recipient)."""
    with Client(world, host, source) as client:
        client.ehlo()
        options = "" if octets.isascii() else "BODY=8BITMIME"
        answer = client.send(*envelope, octets, options)
        client.command("QUIT")
    return answer
