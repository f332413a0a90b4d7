"""What a seal signs: all sets up to its own, its own signature left empty (RFC 8617 5.1.1).

Contract: the input is the fields as they stand in the message, each with its last CRLF; nothing fails. Time is linear
in the octets of all sets together, although every seal covers those before it: the hash is copied on its way.

RSA and Ed25519 both sign the SHA-256 digest (RFC 6376 3.3.2, RFC 8463 3), so digests are given, not octets.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from forwarder.auth.dkim.canonical import header_relaxed, without_signature


class SetFields(NamedTuple):
    """The three fields of one set, in the order in which they are sealed."""

    results: bytes
    message_signature: bytes
    seal: bytes


def seal_digests(sets: Iterable[SetFields]) -> tuple[bytes, ...]:
    """Give what the seal of each set signs; `sets` begins with instance 1.

    To seal, append a set whose b= is empty and sign the last digest. A seal with cv=fail covers its own set alone
    (RFC 8617 5.1.2).
    """
    digests = []
    sealed = sha256()
    for each in sets:
        sealed.update(header_relaxed(each.results))  # RFC 8617 5.1.1: relaxed, whatever c= the other fields have
        sealed.update(header_relaxed(each.message_signature))
        own = sealed.copy()
        own.update(header_relaxed(without_signature(each.seal)).removesuffix(b"\r\n"))
        digests.append(own.digest())
        sealed.update(header_relaxed(each.seal))
    return tuple(digests)
