"""Seals messages with any tags at all, also wrong ones, and validates them against a table of key records."""

import base64
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from forwarder.auth.arc.record import MESSAGE_SIGNATURE, RESULTS, SEAL
from forwarder.auth.arc.seal import SetFields, seal_digests
from forwarder.auth.arc.verify import ArcResult, verify
from forwarder.auth.dkim.canonical import BodyHasher, BodyKey, signed_octets
from forwarder.model.headers import split_header
from tests.auth.dkim.signer import MESSAGE, NOW, Key, incoming, rsa_key
from tests.fakes import FakeResolver

DOMAIN, SELECTOR = "relay.test", "arc"
NAME = f"{SELECTOR}._domainkey.{DOMAIN}"
Tags = Mapping[str, str | None]


def seal(
    message: bytes = MESSAGE,
    key: Key | None = None,
    *,
    results: str | None = None,
    signature: Tags | None = None,
    cover: Tags | None = None,
) -> bytes:
    """Put the next set in front. `results` is the value of its ARC-Authentication-Results, `signature` and `cover` are
    tags of its ARC-Message-Signature and its ARC-Seal that replace what is usual (None leaves them out).

    What is signed is what stands there, also where it is wrong.
    """
    key = key or rsa_key()
    header = split_header(message)
    below = map(SetFields, *(_raw(message, name) for name in (RESULTS, MESSAGE_SIGNATURE, SEAL)))
    instance = str(len(header.all(SEAL)) + 1)
    usual = {"i": instance, "a": f"{key.kind}-sha256", "d": DOMAIN, "s": SELECTOR, "t": str(NOW - 60)}
    aar = _field("ARC-Authentication-Results", results or f"i={instance}; relay.test; spf=pass smtp.mailfrom=a.test")
    ams = _sign(aar + message, key, {**usual, "c": "relaxed/relaxed", "h": "from:to:subject", **(signature or {})})
    tags = {**usual, "cv": "none" if instance == "1" else "pass", **(cover or {})}
    unsigned = _field("ARC-Seal", _list(tags) + ";\r\n b=")
    (*_, digest) = seal_digests([*below, SetFields(aar, ams, unsigned)])
    return unsigned[:-2] + base64.b64encode(_sign_digest(key, digest)) + b"\r\n" + ams + aar + message


def _raw(message: bytes, name: bytes) -> list[bytes]:
    """Give the fields of that name, the oldest first."""
    return [field.raw for field in reversed(split_header(message).all(name))]


def _sign(message: bytes, key: Key, tags: Tags) -> bytes:
    length = int(tags.get("l") or -1)
    relaxed_header, _, relaxed_body = (tags.get("c") or "relaxed/relaxed").partition("/")
    hasher = BodyHasher(BodyKey(relaxed_body == "relaxed", "sha256", length if length >= 0 else None))
    hasher.feed(message.partition(b"\r\n\r\n")[2])
    tags = {**tags, "bh": base64.b64encode(hasher.digest().digest).decode()}
    field = _field("ARC-Message-Signature", _list(tags) + ";\r\n b=")
    names = [name for name in (tags["h"] or "").encode().split(b":") if name]
    octets = signed_octets(split_header(message), names, field, relaxed=relaxed_header == "relaxed")
    return field[:-2] + base64.b64encode(key.sign(octets)) + b"\r\n"


def _sign_digest(key: Key, digest: bytes) -> bytes:
    if isinstance(key.private, Ed25519PrivateKey):
        return key.private.sign(digest)
    return key.private.sign(digest, PKCS1v15(), Prehashed(SHA256()))


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode()


def _list(tags: Tags) -> str:
    return ";\r\n ".join(f"{name}={text}" for name, text in tags.items() if text is not None)


def chain(sets: int, message: bytes = MESSAGE) -> bytes:
    """Give a message with that many good sets."""
    for _ in range(sets):
        message = seal(message)
    return message


async def result(message: bytes, records: Mapping[str, str] | None = None, now: int = NOW) -> ArcResult:
    """Validate a message where these key records are published; without them, that of `rsa_key()` under `NAME`."""
    return await verify(resolver(records), incoming(message), now)


def resolver(records: Mapping[str, str] | None = None) -> FakeResolver:
    """Give DNS with these key records; without them, that of `rsa_key()` under `NAME`."""
    records = {NAME: rsa_key().record} if records is None else records
    return FakeResolver({(name, "TXT"): [record] for name, record in records.items()})
