"""Signs messages with any tags at all, also wrong ones, and verifies them against a table of key records."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from forwarder.auth.dkim.canonical import BodyHasher, BodyKey, signed_octets
from forwarder.auth.dkim.verify import DkimResult, verify
from forwarder.auth.incoming import Incoming
from forwarder.model.headers import split_header
from tests.fakes import FakeResolver

NOW = 1_790_000_000
DOMAIN, SELECTOR = "sender.test", "lab"
NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
MESSAGE = (
    b"Received: by somebody\r\nFrom: Alice <alice@sender.test>\r\nTo:  bob@b.test \t\r\n"
    b"Subject: one\r\n\ttwo  three\r\n\r\nHello,  \t Bob \r\n\r\n  good bye\r\n\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A private key; `record` is what to publish."""

    private: rsa.RSAPrivateKey | Ed25519PrivateKey

    @property
    def kind(self) -> str:
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    @property
    def public(self) -> str:
        if isinstance(self.private, rsa.RSAPrivateKey):
            octets = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        else:
            octets = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(octets).decode()

    @property
    def record(self) -> str:
        return f"v=DKIM1; k={self.kind}; p={self.public}"

    def sign(self, octets: bytes) -> bytes:
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(octets, padding.PKCS1v15(), SHA256())
        return self.private.sign(sha256(octets).digest())


@cache
def rsa_key(bits: int = 2048, number: int = 0) -> Key:
    """Give a key, the same for the same arguments."""
    return Key(rsa.generate_private_key(65537, bits))


@cache
def ed25519_key() -> Key:
    return Key(Ed25519PrivateKey.generate())


def sign(message: bytes = MESSAGE, key: Key | None = None, **tags: str | None) -> bytes:
    """Put a DKIM-Signature in front; a tag that is None is left out, others replace what is usual.

    The tags stand as given, also if they are wrong; the hashes are of c= and l= as far as they can be understood.
    """
    key = key or rsa_key()
    usual: dict[str, str | None] = {
        **{"v": "1", "a": f"{key.kind}-sha256", "c": "relaxed/relaxed", "d": DOMAIN, "s": SELECTOR},
        **{"h": "from:to:subject", "t": str(NOW - 60), "bh": "", "b": ""},
    }
    if "bh" not in tags:
        tags["bh"] = base64.b64encode(_body_hash(message, {**usual, **tags})).decode()
    chosen = {name: text for name, text in {**usual, **tags}.items() if text is not None}
    head = "DKIM-Signature: " + ";\r\n ".join(f"{name}={text}" for name, text in chosen.items() if name != "b")
    if "b" not in chosen:
        return head.encode() + b"\r\n" + message
    if chosen["b"]:
        return f"{head};\r\n b={chosen['b']}\r\n".encode() + message
    field = f"{head};\r\n b=\r\n".encode()
    names = [name.strip().lower().encode() for name in chosen.get("h", "").split(":")]
    relaxed = chosen.get("c", "simple").startswith("relaxed")
    octets = signed_octets(split_header(message), names, field, relaxed=relaxed)
    return field[:-2] + base64.b64encode(key.sign(octets)) + b"\r\n" + message


def _body_hash(message: bytes, tags: Mapping[str, str | None]) -> bytes:
    length = tags.get("l") or ""
    relaxed = (tags.get("c") or "").endswith("/relaxed")
    hasher = BodyHasher(BodyKey(relaxed, "sha256", int(length) if length.isdecimal() else None))
    hasher.feed(message.partition(b"\r\n\r\n")[2])
    return hasher.digest().digest


def incoming(message: bytes, step: int = 1 << 16) -> Incoming:
    """Feed a message in steps and finish."""
    made = Incoming()
    for start in range(0, len(message), step):
        made.feed(message[start : start + step])
    made.finish()
    return made


async def results(message: bytes, records: Mapping[str, list[str]], now: int = NOW) -> tuple[DkimResult, ...]:
    """Verify a message where these key records are published."""
    zone = {(name, "TXT"): texts for name, texts in records.items()}
    return await verify(FakeResolver(zone), incoming(message), now)


async def result(message: bytes, *records: str, now: int = NOW) -> DkimResult:
    """Verify a message with one signature; without records, with that of `rsa_key()`."""
    (only,) = await results(message, {NAME: list(records) or [rsa_key().record]}, now)
    return only
