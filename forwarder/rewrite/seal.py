"""Add our set to a message's ARC chain: what we found out about the sender, for those who trust us (RFC 8617 5.1).

`seal` gives the three fields to be put on top of the message, or b"" where no set may or need be added:

- The chain failed. Nobody can make it hold again. RFC 8617 5.1.2 would have us say so in a set with cv=fail; that set
  tells receivers nothing that they do not find out themselves, and a DNS error of ours would be final for everybody
  behind us (5.2.1). A chain whose newest seal says cv=fail is never added to (5.1 step 2).
- It has 50 sets (4.2.1).
- There are no results to put down.

Other forwarders may add fields and sets on top: ours hold all the same. The message signature covers what our
DKIM-Signature covers, and the DKIM-Signature fields themselves, ours too (4.1.2, 5.1 step 1); no ARC fields and no
Authentication-Results (4.1.2).

Only RSA keys seal: a set has one signature of each kind, and validators know rsa-sha256 alone; a set that they cannot
check would break the chain for them.
"""

from dataclasses import dataclass
from hashlib import sha256

from forwarder.auth.arc.record import MAX_SETS, read_chain
from forwarder.auth.arc.seal import SetFields, seal_digests
from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.canonical import header_relaxed
from forwarder.model.headers import split_header
from forwarder.rewrite.sign import (
    MAX_OF_A_NAME,
    Signable,
    canonical_draft,
    complete,
    draft,
    tags_of_message,
)
from forwarder.rewrite.signing_key import SigningKey

_SIGNATURE = b"dkim-signature"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Our word for a message, the topmost part of the head: the same for all copies signed with one domain."""

    dkim: bytes = b""  # DKIM-Signature fields
    arc: bytes = b""  # ARC-Seal, ARC-Message-Signature, ARC-Authentication-Results

    @property
    def octets(self) -> bytes:
        """All lines, topmost first."""
        return self.dkim + self.arc


def seal(key: SigningKey, chain: ArcResult, what: Signable, results: bytes, dkim: bytes = b"") -> bytes:
    """Give ARC-Seal, ARC-Message-Signature and ARC-Authentication-Results, in this order, or b"".

    `key` is an RSA key. `chain` is what became of the chain in `what.header`. `results` is our whole
    Authentication-Results field, `dkim` our DKIM-Signature fields, which stand above the message.
    """
    assert key.kind == "rsa"
    if chain.status is ArcStatus.FAIL or chain.instances >= MAX_SETS or not results:
        return b""
    below = tuple(each.fields for each in read_chain(what.header).sets) if chain.instances else ()
    assert len(below) == chain.instances
    instance = f"i={chain.instances + 1}"
    reported = b"ARC-Authentication-Results: " + instance.encode() + b"; " + _payload(results)
    signature = _message_signature(key, what, instance, dkim)
    cover = ("cv=pass" if below else "cv=none", f"d={key.domain}", f"s={key.selector}")  # no h= (4.1.3)
    unsigned = draft("ARC-Seal", (instance, f"a={key.algorithm}", f"t={what.time}", *cover))
    (*_, digest) = seal_digests([*below, SetFields(reported, signature, unsigned)])
    return complete(unsigned, key.sign(digest)) + signature + reported


def _payload(results: bytes) -> bytes:
    """Give what follows the field's name, octet by octet with its folds (RFC 8617 4.1.1), and the CRLF."""
    return results.partition(b":")[2].lstrip(b" \t")


def _message_signature(key: SigningKey, what: Signable, instance: str, dkim: bytes) -> bytes:
    signatures = (*split_header(dkim).fields, *what.header.all(_SIGNATURE))
    covered = signatures[: -MAX_OF_A_NAME - 1 : -1]  # RFC 6376 5.4.2: from the bottom
    names = (*what.names, *(_SIGNATURE for _ in covered))
    unsigned = draft("ARC-Message-Signature", (instance, *tags_of_message(key, what)), names, what.body_hash)
    hashed = sha256(what.canonical)
    for field in covered:
        hashed.update(header_relaxed(field.raw))
    hashed.update(canonical_draft(unsigned))
    return complete(unsigned, key.sign(hashed.digest()))
