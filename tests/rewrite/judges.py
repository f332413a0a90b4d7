"""Signs and seals as a copy leaves, and asks those who would check it: us, dkimpy, OpenDKIM.

dkimpy takes Ed25519 from pynacl; where that is missing, cryptography stands in for the curve, and what is hashed is
still dkimpy's.
"""

import base64
from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, TypeVar

import dkim
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.arc.verify import verify as verify_arc
from forwarder.auth.dkim.verify import DkimStatus, verify
from forwarder.auth.incoming import Incoming
from forwarder.rewrite.seal import Stamp, seal
from forwarder.rewrite.sign import BODY, Signable, sign, signable
from forwarder.rewrite.signing_key import SigningKey, load_key, public_record
from forwarder.rewrite.survival import Change
from tests.auth.dkim.opendkim import LIBRARY, OpenDkim
from tests.auth.dkim.signer import NOW, ed25519_key, rsa_key
from tests.fakes import FakeResolver

DOMAIN = "ours.test"
RESULTS = b"Authentication-Results: mx.ours.test;\r\n\tspf=pass smtp.mailfrom=a@sender.test;\r\n\tdkim=none\r\n"
HEAD = (
    b"X-Forwarded-To: me@elsewhere.test\r\nX-Forwarded-For: shop@ours.test me@elsewhere.test\r\n"
    b"Delivered-To: shop@ours.test\r\n" + RESULTS + b"Received: from a.test (a.test [192.0.2.1])\r\n"
    b"\tby mx.ours.test with ESMTP id ID1;\r\n\tSun, 22 Nov 2026 12:00:00 +0000\r\n"
)
T = TypeVar("T")


def pem(private: Any, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    octets: bytes = private.private_bytes(Encoding.PEM, form, NoEncryption())
    return octets


@cache
def rsa(selector: str = "r1", domain: str = DOMAIN) -> SigningKey:
    return load_key(pem(rsa_key().private), domain, selector)


@cache
def ed25519(selector: str = "e1", domain: str = DOMAIN) -> SigningKey:
    return load_key(pem(ed25519_key().private), domain, selector)


def received(message: bytes) -> Incoming:
    """Take a message in as the gateway does, with the hash for signing."""
    made = Incoming(also=(BODY,))
    for start in range(0, len(message), 1 << 16):
        made.feed(message[start : start + (1 << 16)])
    made.finish()
    return made


def prepared(message: bytes, added: bytes = b"", removed: Sequence[tuple[int, int]] = ()) -> Signable:
    """Give what is signed of a message, with fields of ours in place of some of its own."""
    made = received(message)
    body = made.body_digest(BODY)
    assert made.header is not None
    assert body is not None
    return signable(Change(made.header, added, removed).after, body.digest, NOW)


def signed(message: bytes, *keys: SigningKey, head: bytes = HEAD) -> bytes:
    """Give the octets that leave: our signatures, the rest of our head, the message."""
    return sign(keys or (rsa(),), prepared(message)) + head + message


def stamped(message: bytes, key: SigningKey | None = None, head: bytes = HEAD) -> bytes:
    """Give the octets that leave, sealed too."""
    key = key or rsa()
    what = prepared(message)
    dkim_fields = sign((key,), what)
    stamp = Stamp(dkim_fields, seal(key, arc(message), what, RESULTS, dkim_fields))
    return stamp.octets + head + message


def zone(*keys: SigningKey, **records: str) -> FakeResolver:
    found = {key.name: public_record(key) for key in keys or (rsa(), ed25519(), rsa("r2", "second.test"))}
    return FakeResolver({(name, "TXT"): [text] for name, text in {**found, **records}.items()})


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits: the fake resolver answers at once."""
    try:
        work.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("the fake resolver waited")


def ours(message: bytes) -> list[DkimStatus]:
    """Give our own answers for our own signatures, topmost first."""
    results = run(verify(zone(), received(message), NOW))
    return [result.status for result in results if result.domain in (DOMAIN, "second.test")]


def arc(message: bytes, resolver: FakeResolver | None = None) -> ArcResult:
    return run(verify_arc(resolver or zone(), received(message), NOW))


class _Curve:
    """What dkimpy asks of pynacl."""

    def __init__(self, text: bytes, encoder: object) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(text))

    def verify(self, digest: bytes, signature: bytes) -> None:
        self._key.verify(signature, digest)


if not hasattr(dkim, "nacl"):
    dkim.nacl = SimpleNamespace(
        signing=SimpleNamespace(VerifyKey=_Curve),
        encoding=SimpleNamespace(Base64Encoder=None),
        exceptions=SimpleNamespace(BadSignatureError=InvalidSignature, ValueError=ValueError),
    )


def find(resolver: FakeResolver) -> Callable[..., bytes]:
    records = {name: texts for (name, _), texts in resolver.zone.items()}

    def txt(name: bytes, timeout: int = 5) -> bytes:
        return "".join(map(str, records.get(name.decode().rstrip("."), ()))).encode()

    return txt


def dkimpy(message: bytes, index: int = 0) -> bool:
    return bool(dkim.DKIM(message).verify(index, find(zone())))


def dkimpy_arc(message: bytes, resolver: FakeResolver | None = None) -> ArcStatus:
    status, _, _ = dkim.arc_verify(message, dnsfunc=find(resolver or zone()))
    return ArcStatus((status or b"fail").decode())


def opendkim(message: bytes, key: SigningKey) -> bool:
    assert LIBRARY is not None
    if b"\r\n\r\n" not in message:
        message += b"\r\n"  # a milter is told that the header ends; here the blank line tells
    return OpenDkim(LIBRARY, b"", public_record(key).encode()).verifies(message)
