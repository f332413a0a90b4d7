"""Public keys, from DNS to the answer "this key made that signature" (RFC 6376 3.3, 6.1.2; RFC 8301; RFC 8463).

`look_up` asks for the keys under a name, `published` reads one record and loads its key; what cannot be used is a
`Refusal` with its reason. Records are kept once
read, refused ones too, since loading costs as much as verifying. No input costs more than a few milliseconds: what is
too large for an RSA key of 4096 bits is refused before it is looked into, and an exponent is bounded before it is used.

Left out on purpose: private keys.
"""

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from forwarder.auth.dkim.record import KeyRecord, KeyRecordError, parse_key
from forwarder.ports import DnsStatus, Resolver

MIN_BITS, MAX_BITS = 1024, 4096  # RFC 8301 3.2: below is never good; up to 4096 must be understood
_MAX_OCTETS = 1024  # of p=; 4096 bits take 550
_MAX_EXPONENT_BITS = 32  # 65537 has 17
_ED25519_OCTETS = 32  # RFC 8463 4
_RECORDS_READ, _KEYS_TRIED = 10, 3  # RFC 6376 3.6.2.2 leaves open what several records mean
_CACHED, _CACHED_OCTETS = 2048, 2048

_PADDING = PKCS1v15()
_DIGEST = Prehashed(SHA256())


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key and what its record says of it."""

    record: KeyRecord
    key: RSAPublicKey | Ed25519PublicKey

    @property
    def algorithm(self) -> str:
        """The a= of the signatures that it can verify."""
        return f"{self.record.kind}-sha256"

    def made(self, signature: bytes, octets: bytes) -> bool:
        """Say whether this key signed the octets."""
        return self.made_digest(signature, sha256(octets).digest())

    def made_digest(self, signature: bytes, digest: bytes) -> bool:
        """Say whether this key signed the octets with that SHA-256 digest."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PADDING, _DIGEST)  # RFC 6376 3.3.2
            else:
                self.key.verify(signature, digest)  # RFC 8463 3: the hash is what is signed
        except InvalidSignature:
            return False
        return True


class Cause(Enum):
    """What kind of reason there is for having no key."""

    TEMPORARY = "temporary"  # DNS did not answer
    UNUSABLE = "unusable"  # there is none, or it is malformed, revoked or for something else
    WEAK = "weak"  # there is one, of a strength that is not believed


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no key."""

    cause: Cause
    reason: str


async def look_up(resolver: Resolver, name: str, algorithm: str) -> tuple[PublicKey, ...] | Refusal:
    """Give the keys for an algorithm (a=) that are published under a name: one, or a few to be tried in turn."""
    answer = await resolver.txt(name)
    if answer.status is DnsStatus.FAILED:
        return Refusal(Cause.TEMPORARY, f"its key could not be looked up: {answer.reason}")
    if answer.status is not DnsStatus.FOUND:
        return Refusal(Cause.UNUSABLE, f"there is no key at {name}")
    found = [published(text) for text in answer.records[:_RECORDS_READ]]
    keys = tuple(key for key in found if isinstance(key, PublicKey) and key.algorithm == algorithm)
    if keys:
        return keys[:_KEYS_TRIED]
    refusals = [each for each in found if isinstance(each, Refusal)]
    other = Refusal(Cause.UNUSABLE, "the key is for another algorithm than the signature's")  # RFC 6376 6.1.2 item 6
    return next((each for each in refusals if each.cause is Cause.WEAK), (refusals or [other])[0])


def published(text: bytes) -> PublicKey | Refusal:
    """Read a key record (one TXT record, its strings joined)."""
    return _cached(text) if len(text) <= _CACHED_OCTETS else _published(text)


def _published(text: bytes) -> PublicKey | Refusal:
    try:
        record = parse_key(text)
    except KeyRecordError as error:
        return Refusal(Cause.UNUSABLE, f"the key record cannot be used: {error}")
    if not record.key:  # RFC 6376 3.6.1: p= empty
        return Refusal(Cause.UNUSABLE, "the key was revoked")
    key = _load_rsa(record.key) if record.kind == "rsa" else _load_ed25519(record.key)
    return key if isinstance(key, Refusal) else PublicKey(record, key)


_cached = lru_cache(maxsize=_CACHED)(_published)


def _load_rsa(octets: bytes) -> RSAPublicKey | Refusal:
    if len(octets) > _MAX_OCTETS:
        return Refusal(Cause.WEAK, f"the key is larger than {MAX_BITS} bits")
    try:
        # A SubjectPublicKeyInfo, or the bare RSAPublicKey that RFC 6376 3.6.1 asks for and nobody publishes.
        key = load_der_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        return Refusal(Cause.UNUSABLE, "the key is not an RSA key")
    if not isinstance(key, RSAPublicKey):
        return Refusal(Cause.UNUSABLE, "the key is not an RSA key")
    if not MIN_BITS <= key.key_size <= MAX_BITS:
        return Refusal(Cause.WEAK, f"the key has {key.key_size} bits, not {MIN_BITS} to {MAX_BITS}")
    if key.public_numbers().e.bit_length() > _MAX_EXPONENT_BITS:
        return Refusal(Cause.WEAK, "the key has an exponent that is too large")
    return key


def _load_ed25519(octets: bytes) -> Ed25519PublicKey | Refusal:
    if len(octets) != _ED25519_OCTETS:
        return Refusal(Cause.UNUSABLE, "the key is not an Ed25519 key")
    return Ed25519PublicKey.from_public_bytes(octets)
