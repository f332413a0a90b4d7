"""The letter of the demonstration: written and signed as a real sender would, sent with its dialogue kept.

`compose` gives the octets with a DKIM signature, and the public key for the zone; `send` hands them to a server and
gives every line that was said. The letter has what careless software breaks: 8-bit text, lines that begin with dots,
odd folding and trailing spaces.

Can fail: `OSError` when nobody listens; a refusal is a result.
"""

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_SELECTOR = "demo"
_REPLY_WITHIN = 60.0  # seconds; the gateway's own deadline for the next hop is 25

_LETTER = """\
From: Ada Lovelace <ada@{sender}>
To: You <{recipient}>
Subject: The first letter
 through  your\tforwarder
Date: {date}
Message-ID: <{stamp}@{sender}>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Good day,

this letter was signed by its sender. It holds what careless software breaks on the way:
letters beyond ASCII (Grüße, żółw, 手紙), trailing spaces   \u0020
.a line that begins with a dot
..and one with two.

If the signature still verifies in your inbox, not one octet was altered.

Ada
"""


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed message, and where its public key belongs in the DNS."""

    octets: bytes
    key_name: str
    key_record: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What was said, each line with "C: " or "S: " in front; `accepted` is whether the dot was answered 250."""

    lines: tuple[str, ...]
    accepted: bool


def compose(sender: str, recipient: str, now: datetime) -> Signed:
    """Write and sign the letter; `sender` is a domain, `recipient` a mailbox."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    text = _LETTER.format(
        sender=sender, recipient=recipient, date=format_datetime(now), stamp=f"{now.timestamp():.0f}.letter"
    )
    octets = text.replace("\n", "\r\n").encode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    signature: bytes = dkim.sign(
        octets, _SELECTOR.encode(), sender.encode(), private, canonicalize=(b"simple", b"simple")
    )
    record = "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()
    return Signed(signature + octets, f"{_SELECTOR}._domainkey.{sender}", record)


def verifies(octets: bytes, signed: Signed) -> bool:
    """Say whether the letter's signature, the lowest, is good in what arrived."""

    def look_up(name: bytes, timeout: float = 5) -> bytes | None:
        return signed.key_record.encode() if name.decode().rstrip(".") == signed.key_name else None

    try:
        message = dkim.DKIM(octets)
        count = sum(name.lower() == b"dkim-signature" for name, _ in message.headers)
        return count > 0 and bool(message.verify(count - 1, look_up))
    except dkim.DKIMException:
        return False


async def send(server: tuple[str, int], sender: str, recipient: str, octets: bytes) -> Dialogue:
    """Send one message; stop at the first refusal."""
    async with asyncio.timeout(_REPLY_WITHIN):
        reader, writer = await asyncio.open_connection(*server)
        try:
            return await _talk(reader, writer, _commands(sender, recipient, octets))
        finally:
            writer.close()


def _commands(sender: str, recipient: str, octets: bytes) -> list[tuple[str, bytes]]:
    """Give what we say, each as it is shown and as it is sent."""
    domain = sender.rpartition("@")[2]
    lines = [
        f"EHLO {domain}",
        f"MAIL FROM:<{sender}> BODY=8BITMIME SIZE={len(octets)}",
        f"RCPT TO:<{recipient}>",
        "DATA",
    ]
    stuffed = (b"\r\n" + octets).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"  # RFC 5321 4.5.2
    shown = f"({len(octets)} octets of message) ."
    return [*((line, f"{line}\r\n".encode()) for line in lines), (shown, stuffed), ("QUIT", b"QUIT\r\n")]


async def _talk(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, commands: list[tuple[str, bytes]]
) -> Dialogue:
    said: list[str] = []
    accepted = False
    code = await _reply(reader, said)
    for shown, octets in commands:
        if code >= 400 and shown != "QUIT":
            continue
        said.append(f"C: {shown}")
        writer.write(octets)
        await writer.drain()
        code = await _reply(reader, said)
        accepted = accepted or (octets.endswith(b"\r\n.\r\n") and code == 250)
    return Dialogue(tuple(said), accepted)


async def _reply(reader: asyncio.StreamReader, said: list[str]) -> int:
    """Read one reply; note its lines and give its code, 421 when the connection ends."""
    while True:
        line = (await reader.readline()).decode("ascii", "backslashreplace").rstrip("\r\n")
        if not line:
            said.append("S: (closed the connection)")
            return 421
        said.append(f"S: {line}")
        if line[3:4] != "-":
            return int(line[:3]) if line[:3].isdigit() else 421
