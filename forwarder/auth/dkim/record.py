"""What signers write: the signature in a message (RFC 6376 3.5; RFC 8617 4.1.2) and the key in DNS (RFC 6376 3.6.1).

`parse_signature` and `parse_key` give a value or raise `SignatureError` or `KeyRecordError`, whose text says in plain
words what is wrong and quotes at most the name of a tag. Both take linear time.

Left out on purpose: what the time of day decides (`verify`), whether an algorithm is good enough (`verify`), and the
key itself, which stays octets here (`keys`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from forwarder.auth.dkim.canonical import BodyKey
from forwarder.auth.dkim.tags import TagError, decode_base64, parse_tags, unspaced
from forwarder.model.address import AddressError, canonical_name

ALGORITHMS = frozenset({"rsa-sha256", "ed25519-sha256"})  # RFC 8301 3.1, RFC 8463 3: what may be believed
MAX_NAMES = 1000  # in h=; real signatures have about 20
_MAX_DNS_NAME = 253

_NUMBER = re.compile(r"[0-9]{1,12}")  # RFC 6376 3.5: t= and x=
_LENGTH = re.compile(r"[0-9]{1,76}")  # RFC 6376 3.5: l=
_INSTANCE = re.compile(r"[1-9][0-9]?")  # RFC 8617 4.2.1
_FIELD_NAMES = re.compile(r"[!-:<-~]*")  # RFC 6376 3.5: field names without semicolons, with colons between
_BODY_HASH_OCTETS = {"rsa-sha256": 32, "ed25519-sha256": 32, "rsa-sha1": 20}


class SignatureError(ValueError):
    """Not a signature; the text says why."""


class KeyRecordError(ValueError):
    """Not a key record; the text says why."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A DKIM-Signature, or an ARC-Message-Signature (then `instance` is its i= and `identity` is "").

    `domain`, `selector` and `identity_domain` are lower-case A-labels. `identity` is i= with the domain so and the
    local part as written. `names` are those of h= in lower case. Times are Unix seconds. `text` is b= as written.
    """

    domain: str
    selector: str
    algorithm: str
    signature: bytes
    text: str
    body_hash: bytes
    names: tuple[bytes, ...]
    header_relaxed: bool
    body: BodyKey
    identity: str
    identity_domain: str
    signed_at: int | None
    expires: int | None
    instance: int = 0

    @property
    def key_name(self) -> str:
        """Where the key is published (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as published. `kind` is "rsa" or "ed25519"; `key` the octets of p=, empty when the key was revoked.

    `testing` is t=y, `exact_domain` is t=s: i= must then be in d= itself.
    """

    kind: str
    key: bytes
    testing: bool
    exact_domain: bool


def parse_signature(value: bytes, *, arc: bool = False) -> Signature:
    """Read what follows the colon of a DKIM-Signature, or with `arc` of an ARC-Message-Signature."""
    try:
        tags = parse_tags(value)
    except TagError as error:
        raise SignatureError(str(error)) from None
    for name in ("i" if arc else "v", "a", "b", "bh", "d", "h", "s"):  # RFC 6376 6.1.1
        if name not in tags:
            raise SignatureError(f"the tag {name}= is missing")
    if not arc and tags["v"] != "1":
        raise SignatureError("its version is not 1")
    domain, selector = _domain(tags["d"], "d"), _domain(tags["s"], "s")
    if len(selector) + len("._domainkey.") + len(domain) > _MAX_DNS_NAME:
        raise SignatureError("the name of its key is longer than DNS allows")
    identity, identity_domain = ("", domain) if arc else _identity(tags, domain)
    signed_at, expires = _times(tags)
    # RFC 6376 3.5: c=. Sealers that leave it out sign relaxed nevertheless, and validators of ARC expect it.
    header_relaxed, body_relaxed = _canonicalisation(tags.get("c", "relaxed/relaxed" if arc else "simple/simple"))
    if "dns/txt" not in unspaced(tags.get("q", "dns/txt")).split(":"):
        raise SignatureError("q= names no way to get the key that is known")
    return Signature(
        domain,
        selector,
        tags["a"],
        _base64(tags["b"], "b"),
        unspaced(tags["b"]),
        _body_hash(tags),
        _names(tags["h"], arc=arc),
        header_relaxed,
        BodyKey(body_relaxed, "sha256", _length(tags)),
        identity,
        identity_domain,
        signed_at,
        expires,
        _instance(tags["i"]) if arc else 0,
    )


def _domain(text: str, tag: str) -> str:
    try:
        # RFC 8616 4: what is written in U-labels is compared and looked up in A-labels.
        return canonical_name("" if text.endswith(".") else text)
    except AddressError:
        raise SignatureError(f"{tag}= is not a domain name") from None


def _identity(tags: Mapping[str, str], domain: str) -> tuple[str, str]:
    if "i" not in tags:
        return f"@{domain}", domain
    local, at, name = unspaced(tags["i"]).rpartition("@")
    if not at:
        raise SignatureError("i= has no domain")
    name = _domain(name, "i")
    if name != domain and not name.endswith("." + domain):  # RFC 6376 3.5: i=
        raise SignatureError("i= is not within d=")
    return f"{local}@{name}", name


def _times(tags: Mapping[str, str]) -> tuple[int | None, int | None]:
    for name in ("t", "x"):
        if name in tags and not _NUMBER.fullmatch(tags[name]):
            raise SignatureError(f"{name}= is not a time")
    signed_at = int(tags["t"]) if "t" in tags else None
    expires = int(tags["x"]) if "x" in tags else None
    if signed_at is not None and expires is not None and expires <= signed_at:  # RFC 6376 3.5: x=
        raise SignatureError("it expires before it was made")
    return signed_at, expires


def _canonicalisation(text: str) -> tuple[bool, bool]:
    header, slash, body = unspaced(text).partition("/")
    if not slash:
        body = "simple"  # RFC 6376 3.5: c=relaxed is relaxed/simple
    if header not in ("simple", "relaxed") or body not in ("simple", "relaxed"):
        raise SignatureError("c= names an unknown canonicalisation")
    return header == "relaxed", body == "relaxed"


def _body_hash(tags: Mapping[str, str]) -> bytes:
    octets = _base64(tags["bh"], "bh")
    if len(octets) != _BODY_HASH_OCTETS.get(tags["a"], len(octets)):
        raise SignatureError("bh= has the wrong length for the algorithm")
    return octets


def _length(tags: Mapping[str, str]) -> int | None:
    if "l" not in tags:
        return None
    if not _LENGTH.fullmatch(tags["l"]):
        raise SignatureError("l= is not a number")
    return int(tags["l"])


def _instance(text: str) -> int:
    if not _INSTANCE.fullmatch(text) or int(text) > 50:
        raise SignatureError("i= is not from 1 to 50")
    return int(text)


def _names(text: str, *, arc: bool) -> tuple[bytes, ...]:
    joined = unspaced(text)
    if not _FIELD_NAMES.fullmatch(joined):
        raise SignatureError("h= is not a list of field names")
    # Signers and sealers leave names out, as in `from:to:`; a nameless field is one that is not there.
    names = [name for name in joined.lower().encode().split(b":") if name]
    if len(names) > MAX_NAMES:
        raise SignatureError(f"h= names more than {MAX_NAMES} fields")
    if not arc and b"from" not in names:  # RFC 6376 5.4, 6.1.1
        raise SignatureError("h= does not name From")
    return tuple(names)


def _base64(text: str, tag: str) -> bytes:
    try:
        octets = decode_base64(text)
    except TagError:
        octets = b""
    if not octets:
        raise SignatureError(f"{tag}= is not base64")
    return octets


def parse_key(text: bytes) -> KeyRecord:
    """Read a key record, one TXT record with its strings joined."""
    try:
        tags = parse_tags(text)
    except TagError as error:
        raise KeyRecordError(str(error)) from None
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):  # RFC 6376 3.6.1
        raise KeyRecordError("it is not of version DKIM1")
    if "p" not in tags:
        raise KeyRecordError("it has no p=")
    kind = tags.get("k", "rsa")
    if kind not in ("rsa", "ed25519"):
        raise KeyRecordError("its k= is unknown")
    if "sha256" not in _listed(tags, "h", "sha256"):  # RFC 8301 3.1: nothing else is left
        raise KeyRecordError("its h= does not allow sha256")
    if not {"*", "email"} & _listed(tags, "s", "*"):
        raise KeyRecordError("its s= does not allow e-mail")
    flags = _listed(tags, "t", "")
    return KeyRecord(kind, _key_octets(tags["p"]), "y" in flags, "s" in flags)


def _listed(tags: Mapping[str, str], name: str, default: str) -> set[str]:
    return set(unspaced(tags.get(name, default)).split(":"))


def _key_octets(text: str) -> bytes:
    try:
        return decode_base64(text)
    except TagError:
        raise KeyRecordError("its p= is not base64") from None
