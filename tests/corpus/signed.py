"""Messages with a DKIM signature, made and checked by dkimpy with keys made for the test."""

import base64
from collections.abc import Callable
from dataclasses import dataclass

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.corpus.odd import HEADER

DOMAIN, SELECTOR = "sender.test", "lab"

_BODY = "Grüße \t \r\n\r\n.dot\r\n  indented   text \r\nFrom here\r\n\r\n\r\n".encode()
# Folding and white space that "simple" wants to see again exactly.
_FOLDED = b"X-Folded: one\r\n  two\t \r\n\tthree\r\nX-Empty:\r\n"

CANONICAL = ("simple/simple", "simple/relaxed", "relaxed/simple", "relaxed/relaxed")


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key and the TXT record to publish at `SELECTOR._domainkey.DOMAIN`."""

    private: bytes
    record: str

    @property
    def name(self) -> str:
        """Where the record belongs."""
        return f"{SELECTOR}._domainkey.{DOMAIN}"


def make_key() -> Key:
    """Make a key."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Key(pem, "v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode())


def sign(
    key: Key, canonical: str, octets: bytes = HEADER + _FOLDED + b"\r\n" + _BODY, *, length: bool = False
) -> bytes:
    """Give the message with a signature in front; `length` adds l=."""
    header, body = (part.encode() for part in canonical.split("/"))
    signature = dkim.sign(
        octets, SELECTOR.encode(), DOMAIN.encode(), key.private, canonicalize=(header, body), length=length
    )
    return bytes(signature) + octets


def verifies(key: Key, octets: bytes) -> bool:
    """Whether the lowest signature of the message is good."""
    message = dkim.DKIM(octets)
    last = sum(name.lower() == b"dkim-signature" for name, _ in message.headers) - 1
    try:
        return bool(message.verify(max(last, 0), _lookup(key)))
    except dkim.DKIMException:
        return False


def _lookup(key: Key) -> Callable[..., bytes | None]:
    def find(name: bytes, timeout: int = 5) -> bytes | None:
        return key.record.encode() if name.decode().rstrip(".") == key.name else None

    return find
