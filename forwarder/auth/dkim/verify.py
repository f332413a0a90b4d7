"""Verify the DKIM signatures of a message (RFC 6376 6.1).

`verify` gives a result for each signature that `choice` picked, in that order; no signature, no result. It never
raises for what a message or DNS may hold. A signature costs one DNS question and, unless the domain publishes several
keys under one name, one public-key operation.

Status and reason are for people and for Authentication-Results; what DMARC may believe is a PASS whose body was not
extended. Left out on purpose: signing, alignment, and reports to signers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from forwarder.auth.dkim.canonical import signed_octets
from forwarder.auth.dkim.choice import Candidate
from forwarder.auth.dkim.keys import Cause, PublicKey, Refusal, look_up
from forwarder.auth.dkim.record import ALGORITHMS, Signature
from forwarder.auth.incoming import Incoming
from forwarder.ports import Resolver

CLOCK_SKEW = 300  # seconds by which clocks of signers may be wrong
_SHORTEST_START = 8  # RFC 6008 4


class DkimStatus(Enum):
    """What became of a signature, in the words of RFC 8601 2.7.1."""

    NONE = "none"  # the message has no signature
    PASS = "pass"  # noqa: S105 - no password; d= signed this message, and it is as it was signed
    FAIL = "fail"  # the message was changed, or the signature was not made with d='s key
    POLICY = "policy"  # signed in a way that is too weak to be believed (RFC 8301)
    NEUTRAL = "neutral"  # signed in a way that is not known here
    TEMPERROR = "temperror"  # the key could not be had now
    PERMERROR = "permerror"  # the signature or its key is malformed, missing, revoked or expired


@dataclass(frozen=True, slots=True)
class DkimResult:
    """What became of one signature.

    `domain`, `selector`, `identity` and `algorithm` are d=, s=, i= and a= (domains as A-labels), "" if the signature
    could not be read. `signature_start` is the beginning of b= that tells the message's signatures apart (RFC 6008 4).
    `body_extended`: l= left out the end of the body, so that anybody may have written it. `testing` is the key's t=y.
    `reason` is empty only for PASS.
    """

    status: DkimStatus
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    signature_start: str = ""
    reason: str = ""
    body_extended: bool = False
    testing: bool = False


async def verify(resolver: Resolver, incoming: Incoming, now: int) -> tuple[DkimResult, ...]:
    """Verify the chosen signatures of a finished message; `now` is in Unix seconds."""
    if incoming.header is None:
        return (DkimResult(DkimStatus.PERMERROR, reason="the header section is too long to be checked"),)
    width = _start_width(incoming.signatures)
    return tuple([await _verify(resolver, incoming, each, now, width) for each in incoming.signatures])


def _start_width(candidates: Sequence[Candidate]) -> int:
    """Give how much of b= tells the signatures apart (RFC 6008 4)."""
    texts = {each.signature.text for each in candidates if isinstance(each.signature, Signature)}
    width = _SHORTEST_START
    while len({text[:width] for text in texts}) < len(texts):
        width *= 2
    return width


async def _verify(resolver: Resolver, incoming: Incoming, candidate: Candidate, now: int, width: int) -> DkimResult:
    signature = candidate.signature
    if not isinstance(signature, Signature):
        return DkimResult(DkimStatus.PERMERROR, reason=f"the signature cannot be read: {signature}")
    result = refused(signature, now) or await verify_signature(resolver, incoming, candidate.field.raw, signature)
    return replace(
        result,
        domain=signature.domain,
        selector=signature.selector,
        identity=signature.identity,
        algorithm=signature.algorithm,
        signature_start=signature.text[:width],
    )


def refused(signature: Signature, now: int) -> DkimResult | None:
    """Judge what needs no key; None if nothing speaks against it."""
    if signature.algorithm == "rsa-sha1":  # RFC 8301 3.1
        return DkimResult(DkimStatus.POLICY, reason="it was made with rsa-sha1, which is no longer believed")
    if signature.algorithm not in ALGORITHMS:
        return DkimResult(DkimStatus.NEUTRAL, reason="it was made with an algorithm that is not known here")
    if signature.expires is not None and signature.expires < now - CLOCK_SKEW:  # RFC 6376 3.5: x=
        return DkimResult(DkimStatus.PERMERROR, reason="the signature has expired")
    if signature.signed_at is not None and signature.signed_at > now + CLOCK_SKEW:  # RFC 6376 3.5: t=
        return DkimResult(DkimStatus.PERMERROR, reason="the signature was made in the future")
    return None


async def verify_signature(resolver: Resolver, incoming: Incoming, raw: bytes, signature: Signature) -> DkimResult:
    """Verify one signature, a DKIM-Signature or an ARC-Message-Signature, whatever its times and algorithm.

    `raw` is the very object in the header that `signature` was read from. Of the result only `status`, `reason`,
    `body_extended` and `testing` are filled in.
    """
    keys = await look_up(resolver, signature.key_name, signature.algorithm)
    if isinstance(keys, Refusal):
        return DkimResult(_STATUS[keys.cause], reason=keys.reason)
    if signature.identity_domain != signature.domain:
        keys = tuple(key for key in keys if not key.record.exact_domain)
        if not keys:  # RFC 6376 3.6.1: t=s
            return DkimResult(DkimStatus.PERMERROR, reason="the key is for d= itself, and i= is in a domain below it")
    return compare(incoming, raw, signature, keys)


_STATUS = {
    Cause.TEMPORARY: DkimStatus.TEMPERROR,
    Cause.UNUSABLE: DkimStatus.PERMERROR,
    Cause.WEAK: DkimStatus.POLICY,
}


def compare(incoming: Incoming, raw: bytes, signature: Signature, keys: Sequence[PublicKey]) -> DkimResult:
    """Compare the message with what was signed (RFC 6376 6.1.3); the result is as that of `verify_signature`."""
    testing = keys[0].record.testing
    body = incoming.body_digest(signature.body)
    if body is None:
        return DkimResult(DkimStatus.PERMERROR, reason="its body hash was not computed", testing=testing)
    if body.size < (signature.body.length or 0):  # RFC 6376 3.5: l=
        return DkimResult(DkimStatus.FAIL, reason="the body is shorter than l= says", testing=testing)
    if body.digest != signature.body_hash:
        return DkimResult(DkimStatus.FAIL, reason="the body was changed", testing=testing)
    assert incoming.header is not None
    octets = signed_octets(incoming.header, signature.names, raw, relaxed=signature.header_relaxed)
    for key in keys:
        if key.made(signature.signature, octets):
            return DkimResult(DkimStatus.PASS, body_extended=body.cut, testing=key.record.testing)
    return DkimResult(DkimStatus.FAIL, reason="the header was changed or the key is another", testing=testing)
