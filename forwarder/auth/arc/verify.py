"""Validate the ARC chain of a message (RFC 8617 5.2).

Contract: `verify` gives a result for whatever stands in a message and whatever DNS answers. It asks DNS at most
`MAX_SETS` + 1 questions, none twice for one algorithm, and checks at most `MAX_SETS` seals and 1 + `OLDER_CHECKED`
message signatures, newest first; the first seal that is wrong ends it. The body is not touched: its hashes were made
as it came.

Any error fails the chain for good, DNS errors too (RFC 8617 5.2.1); `temporary` says that it was one that a later try
might not meet.

Stricter than the RFC: a newest message signature whose l= left out the end of the body fails, since anybody can have
written that end, and the sealer's word would be taken for it.

Left out on purpose: whom to trust. A chain that holds may be a spammer's from end to end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from forwarder.auth.arc.record import MAX_SETS, ArcSet, MessageSignature, Seal, read_chain
from forwarder.auth.arc.seal import seal_digests
from forwarder.auth.dkim.keys import Cause, PublicKey, Refusal, look_up
from forwarder.auth.dkim.record import ALGORITHMS, Signature
from forwarder.auth.dkim.verify import DkimResult, DkimStatus, compare, refused
from forwarder.auth.incoming import Incoming
from forwarder.ports import Resolver

OLDER_CHECKED = 5  # message signatures below the newest: they decide nothing


class ArcStatus(Enum):
    """The chain validation status (RFC 8617 4.4), in the words of cv= and of Authentication-Results."""

    NONE = "none"  # the message has no ARC sets
    PASS = "pass"  # noqa: S105 - no password; every seal is good, and the message is as the newest sealer let it go
    FAIL = "fail"  # something is wrong with the chain; nothing in it can be believed


@dataclass(frozen=True, slots=True)
class ArcResult:
    """What became of the chain; the fields after `temporary` are filled in for PASS alone.

    `instances` is the highest i= that the message uses. `reason` is empty only for PASS. `temporary`: the chain failed
    because DNS did not answer.
    `sealer` is d= of the newest seal, `sealers` are (instance, d=) of all, newest first. `authentication_results` is
    what the newest sealer found out, as received after "i=n;". `from_signed`: the newest message signature covers
    From; without that, nobody vouches for who is named there.
    `oldest_pass` is the lowest instance down to which all message signatures are known to hold, 0 if all do
    (RFC 8617 5.2 step 5).
    """

    status: ArcStatus
    instances: int = 0
    reason: str = ""
    temporary: bool = False
    sealer: str = ""
    oldest_pass: int = 0
    authentication_results: bytes = b""
    sealers: tuple[tuple[int, str], ...] = ()
    from_signed: bool = False


async def verify(resolver: Resolver, incoming: Incoming, now: int) -> ArcResult:
    """Validate the chain of a finished message; `now` is in Unix seconds."""
    if incoming.header is None:
        return ArcResult(ArcStatus.FAIL, reason="the header section is too long to be checked")
    chain = read_chain(incoming.header)
    if chain.flaw:
        return ArcResult(ArcStatus.FAIL, chain.highest, chain.flaw)
    if not chain.sets:
        return ArcResult(ArcStatus.NONE, reason="the message has no ARC sets")
    return await _Validation(resolver, incoming, now, chain.sets).result()


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why the chain fails."""

    reason: str
    temporary: bool = False


class _Validation:
    """The validation of one well-formed chain."""

    def __init__(self, resolver: Resolver, incoming: Incoming, now: int, sets: Sequence[ArcSet]) -> None:
        assert 0 < len(sets) <= MAX_SETS
        self._resolver = resolver
        self._incoming = incoming
        self._now = now
        self._sets = sets
        self._keys: dict[tuple[str, str], tuple[PublicKey, ...] | Refusal] = {}

    async def result(self) -> ArcResult:
        newest = self._sets[-1]
        flaw = await self._message_flaw(newest.message) or await self._seals_flaw()
        if flaw:
            return ArcResult(ArcStatus.FAIL, newest.instance, flaw.reason, flaw.temporary)
        signature = newest.message.signature
        return ArcResult(
            ArcStatus.PASS,
            newest.instance,
            sealer=newest.seal.domain,
            oldest_pass=self._oldest_pass(),
            authentication_results=newest.results.payload,
            sealers=tuple((each.instance, each.seal.domain) for each in reversed(self._sets)),
            from_signed=isinstance(signature, Signature) and b"from" in signature.names,
        )

    async def _look_up(self, name: str, algorithm: str) -> tuple[PublicKey, ...] | Refusal:
        """Ask for keys, for the same ones once."""
        if (name, algorithm) not in self._keys:
            self._keys[name, algorithm] = await look_up(self._resolver, name, algorithm)
        return self._keys[name, algorithm]

    async def _message_flaw(self, message: MessageSignature) -> _Flaw | None:
        """Judge the newest message signature (RFC 8617 5.2 step 4)."""
        which = f"the ARC-Message-Signature with i={message.instance}"
        signature = message.signature
        if not isinstance(signature, Signature):
            return _Flaw(f"{which} cannot be read: {signature}")
        result = refused(signature, self._now)
        if result is None:
            keys = await self._look_up(signature.key_name, signature.algorithm)
            if isinstance(keys, Refusal):
                return _Flaw(f"{which} cannot be checked: {keys.reason}", keys.cause is Cause.TEMPORARY)
            result = compare(self._incoming, message.raw, signature, keys)
        if result.body_extended:
            return _Flaw(f"{which} does not cover the end of the body")
        return None if result.status is DkimStatus.PASS else _Flaw(f"{which} is not good: {result.reason}")

    async def _seals_flaw(self) -> _Flaw | None:
        """Judge the seals from the newest on (RFC 8617 5.2 step 6)."""
        digests = seal_digests(each.fields for each in self._sets)
        for each, digest in zip(reversed(self._sets), reversed(digests), strict=True):
            if flaw := await self._seal_flaw(each.seal, digest):
                return flaw
        return None

    async def _seal_flaw(self, seal: Seal, digest: bytes) -> _Flaw | None:
        which = f"the ARC-Seal with i={seal.instance}"
        if seal.algorithm not in ALGORITHMS:
            return _Flaw(f"{which} was made with an algorithm that is not believed or not known")
        keys = await self._look_up(seal.key_name, seal.algorithm)
        if isinstance(keys, Refusal):
            return _Flaw(f"{which} cannot be checked: {keys.reason}", keys.cause is Cause.TEMPORARY)
        if any(key.made_digest(seal.signature, digest) for key in keys):
            return None
        return _Flaw(f"{which} is not good: the sets were changed or the key is another")

    def _oldest_pass(self) -> int:
        """Follow the message signatures down as far as their body hashes and keys are at hand."""
        lowest = self._sets[-1].instance
        for each in self._sets[-2 : -2 - OLDER_CHECKED : -1]:
            if not self._held(each.message):
                return lowest
            lowest = each.instance
        return 0 if lowest == 1 else lowest

    def _held(self, message: MessageSignature) -> bool:
        """Say whether an older message signature is known to hold."""
        signature = message.signature
        if not isinstance(signature, Signature):
            return False
        keys = self._keys.get((signature.key_name, signature.algorithm))
        if not isinstance(keys, tuple) or refused(signature, self._now):
            return False
        result: DkimResult = compare(self._incoming, message.raw, signature, keys)
        return result.status is DkimStatus.PASS and not result.body_extended
