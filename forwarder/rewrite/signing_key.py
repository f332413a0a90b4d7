"""The private keys that we sign with: RSA (RFC 6376 3.3.2) and Ed25519 (RFC 8463).

`load_key` gives a key that is sure to work or raises `SigningKeyError`, whose text says what is wrong and what to do;
it never quotes the key. Domain and selector become lower-case A-labels, so nothing in them can end a tag or a line.
Load a key once: it is reading and checking that cost, half a millisecond each time.

OpenSSL's own check of an RSA key (that its factors are prime) takes 40 to 400 ms and is left out: it would tell of a
key that somebody forged for us, who would then have it anyway. What a damaged file could do is caught by a signature
that the published half, read as any receiver reads it, must accept.

Left out on purpose: files, their modes, DNS, and making keys.
"""

import base64
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from forwarder.auth.dkim.keys import MAX_BITS, Refusal, published
from forwarder.model.address import AddressError, canonical_name

MIN_BITS = 2048  # RFC 8301 3.2: signers SHOULD use at least that; Gmail and Microsoft ask for it
_MAX_DNS_NAME = 253

_PADDING = PKCS1v15()
_DIGEST = Prehashed(SHA256())
_PROOF = sha256(b"a message").digest()
_MAKE_ANOTHER = "make one with `forwarder keys generate`"


class SigningKeyError(ValueError):
    """Not a key to sign with; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key and the name that it is published under. Made by `load_key`."""

    domain: str
    selector: str
    private: RSAPrivateKey | Ed25519PrivateKey = field(repr=False)

    @property
    def kind(self) -> str:
        """The k= of its record: "rsa" or "ed25519"."""
        return "rsa" if isinstance(self.private, RSAPrivateKey) else "ed25519"

    @property
    def algorithm(self) -> str:
        """The a= of its signatures."""
        return f"{self.kind}-sha256"

    @property
    def name(self) -> str:
        """Where its record belongs in DNS (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    def pem(self) -> bytes:
        """Give the key as `load_key` takes it: for another process of ours, and for nobody else."""
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, digest: bytes) -> bytes:
        """Sign the octets with that SHA-256 digest."""
        if isinstance(self.private, RSAPrivateKey):
            return self.private.sign(digest, _PADDING, _DIGEST)  # RFC 6376 3.3.2
        return self.private.sign(digest)  # RFC 8463 3: the hash is what is signed


def load_key(pem: bytes, domain: str, selector: str) -> SigningKey:
    """Read a private key, PKCS #8 or PKCS #1 in PEM form, without password; raise `SigningKeyError`."""
    key = SigningKey(_name(domain, "domain"), _name(selector, "selector"), _read(pem))
    if len(key.name) > _MAX_DNS_NAME:
        raise SigningKeyError("the name of its record is longer than DNS allows: choose a shorter selector")
    if isinstance(key.private, RSAPrivateKey) and not MIN_BITS <= key.private.key_size <= MAX_BITS:
        raise SigningKeyError(
            f"it is an RSA key of {key.private.key_size} bits, and {MIN_BITS} to {MAX_BITS} are believed everywhere: "
            f"{_MAKE_ANOTHER}"
        )
    if not _works(key):
        raise SigningKeyError(f"its parts do not fit together, so the file is damaged: restore it or {_MAKE_ANOTHER}")
    return key


def public_record(key: SigningKey) -> str:
    """Give the text of the TXT record to publish under `key.name` (RFC 6376 3.6.1, RFC 8463 4)."""
    public = key.private.public_key()
    if key.kind == "rsa":
        octets = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    else:
        octets = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={key.kind}; p={base64.b64encode(octets).decode()}"


def _name(text: str, what: str) -> str:
    try:
        return canonical_name(text)
    except AddressError:
        raise SigningKeyError(f"the {what} is not a name that DNS can hold: rename it") from None


def _read(pem: bytes) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        private = load_pem_private_key(pem, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise SigningKeyError(
            "it is encrypted, and there is no password for it: write it again without one (`openssl pkey -in KEY`)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningKeyError(f"it {_shape(pem)}: {_MAKE_ANOTHER}") from None
    if not isinstance(private, RSAPrivateKey | Ed25519PrivateKey):
        raise SigningKeyError(f"it is neither an RSA nor an Ed25519 key: {_MAKE_ANOTHER}")
    return private


def _shape(pem: bytes) -> str:
    if b"PRIVATE KEY-----" in pem:
        return "is a private key that cannot be read"
    return "is the public half of a key" if b"PUBLIC KEY-----" in pem else "is no private key in PEM form"


def _works(key: SigningKey) -> bool:
    """Say whether who reads the key's record accepts what the key signs."""
    reader = published(public_record(key).encode())
    try:
        return not isinstance(reader, Refusal) and reader.made_digest(key.sign(_PROOF), _PROOF)
    except ValueError:  # how OpenSSL says that it cannot calculate with the numbers
        return False
