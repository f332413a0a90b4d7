"""The ARC sets of a message: its fields read and put together by instance (RFC 8617 4).

Contract: `read_chain` never fails; what is wrong with a chain as a whole is its `flaw`, in words that quote nothing of
the message. `parse_seal`, `parse_results` and `parse_message_signature` give a value or raise `ArcError`. All take
linear time, and of a message with more than `MAX_SETS` fields of a kind none is read.

A message signature that cannot be read, but for its instance, is kept as the `SignatureError` that says why: only that
of the newest set decides about the chain (RFC 8617 5.2), the older ones are expected to be broken.

Left out on purpose: keys and signatures (`verify`), and what an ARC-Authentication-Results says: its sealer vouches
for it, and it is for the reader to say whom to trust.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from forwarder.auth.arc.seal import SetFields
from forwarder.auth.dkim.record import Signature, SignatureError, parse_signature
from forwarder.auth.dkim.tags import TagError, decode_base64, parse_tags
from forwarder.model.address import AddressError, canonical_name
from forwarder.model.headers import Field, Header

MAX_SETS = 50  # RFC 8617 4.2.1
RESULTS, MESSAGE_SIGNATURE, SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
_MAX_DNS_NAME = 253

_INSTANCE = re.compile(r"[1-9][0-9]?")
_TIME = re.compile(r"[0-9]{1,12}")  # RFC 6376 3.5: t=
# RFC 5322 3.2.2 CFWS, without comments in comments; possessive, so that nothing is tried twice.
_CFWS = rb"(?:[ \t\r\n]|\((?:[^()\\]|\\.)*+\))*+"
# RFC 8617 4.1.1: the instance, and only it, stands before an authres-payload.
_NUMBERED = re.compile(_CFWS + rb"i" + _CFWS + rb"=" + _CFWS + rb"([0-9]{1,3})" + _CFWS + rb";", re.DOTALL | re.I)


class ArcError(ValueError):
    """Not a field of an ARC set; the text says why."""


@dataclass(frozen=True, slots=True)
class Results:
    """An ARC-Authentication-Results. `payload` is what follows "i=n;", as received and with its folds, stripped."""

    instance: int
    raw: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """An ARC-Message-Signature. `raw` is the very object in the header."""

    instance: int
    raw: bytes
    signature: Signature | SignatureError


@dataclass(frozen=True, slots=True)
class Seal:
    """An ARC-Seal. `status` is cv=: "none", "pass" or "fail"; `domain` and `selector` are lower-case A-labels."""

    instance: int
    raw: bytes
    status: str
    domain: str
    selector: str
    algorithm: str
    signature: bytes

    @property
    def key_name(self) -> str:
        """Where the key is published (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class ArcSet:
    """The three fields of one instance."""

    results: Results
    message: MessageSignature
    seal: Seal

    @property
    def instance(self) -> int:
        """The i= of all three."""
        return self.seal.instance

    @property
    def fields(self) -> SetFields:
        """The fields as they stand in the message."""
        return SetFields(self.results.raw, self.message.raw, self.seal.raw)


@dataclass(frozen=True, slots=True)
class Chain:
    """The sets of a message from instance 1 on; none if there is a `flaw`, which is "" for a well-formed chain.

    `highest` is the highest instance that is used in the message, also by what is flawed; 0 without any.
    """

    sets: tuple[ArcSet, ...]
    highest: int
    flaw: str = ""


class _Numbered(Protocol):
    @property
    def instance(self) -> int: ...


P = TypeVar("P", bound=_Numbered)


def read_chain(header: Header) -> Chain:
    """Put the ARC fields of a message together."""
    fields = {name: header.all(name) for name in (RESULTS, MESSAGE_SIGNATURE, SEAL)}
    if max(map(len, fields.values())) > MAX_SETS:  # RFC 8617 5.2 step 1
        return Chain((), MAX_SETS, f"there are more than {MAX_SETS} ARC sets")
    flaws: list[str] = []
    results = _by_instance(fields[RESULTS], parse_results, flaws)
    messages = _by_instance(fields[MESSAGE_SIGNATURE], parse_message_signature, flaws)
    seals = _by_instance(fields[SEAL], parse_seal, flaws)
    highest = max((0, *results, *messages, *seals))
    if highest in seals and seals[highest].status == "fail":  # RFC 8617 5.2 step 2
        return Chain((), highest, f"the newest seal (i={highest}) says that the chain had failed before")
    instances = range(1, highest + 1)
    if not flaws:
        flaws = [gap for n in instances if (gap := _gap(n, results, messages, seals))]  # RFC 8617 5.2 step 3
    if flaws:
        return Chain((), highest, flaws[0])
    return Chain(tuple(ArcSet(results[n], messages[n], seals[n]) for n in instances), highest)


def _by_instance(fields: Sequence[Field], parse: Callable[[bytes], P], flaws: list[str]) -> dict[int, P]:
    found: dict[int, P] = {}
    for field in fields:
        try:
            part = parse(field.raw)
        except ArcError as error:
            flaws.append(f"an {_TITLES[field.name]} cannot be read: {error}")
            continue
        if part.instance in found:
            flaws.append(f"there are two {_TITLES[field.name]} fields with i={part.instance}")
        found[part.instance] = part
    return found


_TITLES = {
    RESULTS: "ARC-Authentication-Results",
    MESSAGE_SIGNATURE: "ARC-Message-Signature",
    SEAL: "ARC-Seal",
}


def _gap(
    instance: int,
    results: Mapping[int, Results],
    messages: Mapping[int, MessageSignature],
    seals: Mapping[int, Seal],
) -> str:
    """Say what is wrong with one set, "" if nothing."""
    for name, found in ((RESULTS, results), (MESSAGE_SIGNATURE, messages), (SEAL, seals)):
        if instance not in found:
            return f"there is no {_TITLES[name]} with i={instance}"
    expected = "none" if instance == 1 else "pass"  # RFC 8617 5.2 step 3 C
    if seals[instance].status != expected:
        return f"the ARC-Seal with i={instance} says cv={seals[instance].status}, not {expected}"
    return ""


def key_names(header: Header) -> tuple[str, ...]:
    """Give the names whose TXT records validation will ask for, for asking ahead; at most `MAX_SETS` + 1, each once."""
    sets = read_chain(header).sets
    if not sets or not isinstance(sets[-1].message.signature, Signature):
        return ()
    names = (sets[-1].message.signature.key_name, *(each.seal.key_name for each in reversed(sets)))
    return tuple(dict.fromkeys(names))


def parse_results(raw: bytes) -> Results:
    """Read an ARC-Authentication-Results field (RFC 8617 4.1.1)."""
    value = raw.partition(b":")[2]
    match = _NUMBERED.match(value)
    if not match:
        raise ArcError("it does not begin with its instance")
    return Results(_instance(match[1].decode()), raw, value[match.end() :].strip(b" \t\r\n"))


def parse_message_signature(raw: bytes) -> MessageSignature:
    """Read an ARC-Message-Signature field, of which only the instance must be right (RFC 8617 4.1.2)."""
    value = raw.partition(b":")[2]
    try:
        signature = parse_signature(value, arc=True)
    except SignatureError as error:
        return MessageSignature(_instance(_tags(value).get("i", "")), raw, error)
    if SEAL in signature.names:  # RFC 8617 4.1.2
        return MessageSignature(signature.instance, raw, SignatureError("it signs ARC-Seal fields, which it must not"))
    return MessageSignature(signature.instance, raw, signature)


def parse_seal(raw: bytes) -> Seal:
    """Read an ARC-Seal field (RFC 8617 4.1.3)."""
    tags = _tags(raw.partition(b":")[2])
    for name in ("i", "a", "b", "cv", "d", "s"):
        if name not in tags:
            raise ArcError(f"the tag {name}= is missing")
    if "h" in tags:  # RFC 8617 4.1.3: what it signs is fixed
        raise ArcError("it has a tag h=, which is not allowed there")
    if tags["cv"] not in ("none", "pass", "fail"):
        raise ArcError("cv= is neither none nor pass nor fail")
    if "t" in tags and not _TIME.fullmatch(tags["t"]):
        raise ArcError("t= is not a time")
    domain, selector = _domain(tags["d"], "d"), _domain(tags["s"], "s")
    if len(selector) + len("._domainkey.") + len(domain) > _MAX_DNS_NAME:
        raise ArcError("the name of its key is longer than DNS allows")
    return Seal(_instance(tags["i"]), raw, tags["cv"], domain, selector, tags["a"], _signature(tags["b"]))


def _tags(value: bytes) -> Mapping[str, str]:
    try:
        return parse_tags(value)
    except TagError as error:
        raise ArcError(str(error)) from None


def _instance(text: str) -> int:
    if not _INSTANCE.fullmatch(text) or int(text) > MAX_SETS:  # RFC 8617 4.2.1
        raise ArcError(f"i= is not from 1 to {MAX_SETS}")
    return int(text)


def _domain(text: str, tag: str) -> str:
    try:
        return canonical_name("" if text.endswith(".") else text)
    except AddressError:
        raise ArcError(f"{tag}= is not a domain name") from None


def _signature(text: str) -> bytes:
    try:
        octets = decode_base64(text)
    except TagError:
        octets = b""
    if not octets:
        raise ArcError("b= is not base64")
    return octets
