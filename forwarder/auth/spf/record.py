"""The SPF record: `v=spf1 ip4:192.0.2.0/24 include:_spf.example -all` (RFC 7208 4.6, 5, 6, 12).

`select` picks the SPF records out of a domain's TXT records, `parse` reads one completely before anything of it is
evaluated (RFC 7208 4.6: a syntax error anywhere spoils all) or raises `SpfSyntaxError`, in time linear in its length.

Left out on purpose: DNS records of type SPF (RFC 7208 3.1), and guessing what a wrong record may have meant.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from forwarder.auth.spf.macros import MacroString, parse_domain_spec, parse_macro_string
from forwarder.auth.spf.macros import SpfSyntaxError as SpfSyntaxError  # noqa: PLC0414 - the error of `parse`, for who calls it

_VERSION = b"v=spf1"
_CACHED_OCTETS = 512  # of a record that is worth keeping; longer ones are rare, and strangers fill the cache

# RFC 7208 4.6.1: what has "=" right after the name, before any ":" or "/", is a modifier.
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9._-]*)=(.*)")
_DIRECTIVE = re.compile(r"([-+?~]?)([A-Za-z][A-Za-z0-9]*)([:/].*)?")
_CIDR = re.compile(r"(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?")  # RFC 7208 5.3: dual-cidr-length
_CIDR_AT_END = re.compile(r"(?:/[0-9]*)?(?://[0-9]*)?\Z")
_BITS = {4: 32, 6: 128}


class Qualifier(Enum):
    """What a match of the directive means (RFC 7208 4.6.2)."""

    PASS = "+"  # noqa: S105 - no password
    FAIL = "-"
    SOFTFAIL = "~"
    NEUTRAL = "?"


@dataclass(frozen=True, slots=True)
class Prefix:
    """The lengths of dual-cidr-length, in bits."""

    ip4: int = 32
    ip6: int = 128


@dataclass(frozen=True, slots=True)
class All:
    """Matches always (RFC 7208 5.1)."""


@dataclass(frozen=True, slots=True)
class Include:
    """Matches when another domain's record passes (RFC 7208 5.2)."""

    target: MacroString


@dataclass(frozen=True, slots=True)
class A:
    """Matches the addresses of a name (RFC 7208 5.3); no target: the domain itself."""

    target: MacroString | None
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class MxHosts:
    """Matches the addresses of a domain's mail exchangers (RFC 7208 5.4)."""

    target: MacroString | None
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class Ptr:
    """Matches when the client's confirmed reverse name is in a domain (RFC 7208 5.5)."""

    target: MacroString | None


@dataclass(frozen=True, slots=True)
class Network:
    """Matches a range of addresses: ip4, ip6 (RFC 7208 5.6). `version` is 4 or 6, `shift` the bits that may differ."""

    version: int
    address: int
    shift: int


@dataclass(frozen=True, slots=True)
class Exists:
    """Matches when a name has an A record (RFC 7208 5.7)."""

    target: MacroString


Mechanism = All | Include | A | MxHosts | Ptr | Network | Exists


@dataclass(frozen=True, slots=True)
class Directive:
    """One term that may match. `text` is how the record spells it, without the qualifier, in visible ASCII."""

    qualifier: Qualifier
    mechanism: Mechanism
    text: str


@dataclass(frozen=True, slots=True)
class SpfRecord:
    """A record without errors. `redirect` is None where an `all` makes it void (RFC 7208 5.1)."""

    directives: tuple[Directive, ...]
    redirect: MacroString | None = None
    explanation: MacroString | None = None


@dataclass(slots=True)
class _Modifiers:
    known: dict[str, MacroString] = field(default_factory=dict)

    def add(self, name: str, value: str) -> None:
        if name not in ("redirect", "exp"):
            parse_macro_string(value)  # RFC 7208 6: others are ignored, when they are well-formed
            return
        if name in self.known:
            raise SpfSyntaxError(f"{name}= is there twice")  # RFC 7208 6
        self.known[name] = parse_domain_spec(value)


def select(records: Iterable[bytes]) -> list[bytes]:
    """Give those TXT records that are SPF records, whatever their syntax is worth (RFC 7208 4.5)."""
    return [record for record in records if record[:6].lower() == _VERSION and record[6:7] in (b"", b" ")]


def parse(record: bytes) -> SpfRecord:
    """Read a record that `select` gave; raise `SpfSyntaxError`."""
    return _parse_cached(record) if len(record) <= _CACHED_OCTETS else _parse(record)


def _parse(record: bytes) -> SpfRecord:
    if not record.isascii():
        raise SpfSyntaxError("the record is not ASCII")  # RFC 7208 3.1
    directives: list[Directive] = []
    modifiers = _Modifiers()
    for term in filter(None, record[len(_VERSION) :].decode("ascii").split(" ")):
        if match := _MODIFIER.fullmatch(term):
            modifiers.add(match[1].lower(), match[2])
        else:
            directives.append(_directive(term))
    final = any(isinstance(directive.mechanism, All) for directive in directives)
    redirect = None if final else modifiers.known.get("redirect")  # RFC 7208 6.1
    return SpfRecord(tuple(directives), redirect, modifiers.known.get("exp"))


_parse_cached = lru_cache(maxsize=256)(_parse)


def _directive(term: str) -> Directive:
    match = _DIRECTIVE.fullmatch(term)
    reader = _READERS.get(match[2].lower()) if match else None
    if match is None or reader is None:
        raise SpfSyntaxError(f"there is no mechanism {_show(term)}")
    qualifier = Qualifier(match[1] or "+")
    return Directive(qualifier, reader(match[3] or ""), term.removeprefix(match[1]))


def _all(rest: str) -> All:
    if rest:
        raise SpfSyntaxError("all takes no argument")
    return All()


def _include(rest: str) -> Include:
    return Include(_target(rest))


def _exists(rest: str) -> Exists:
    return Exists(_target(rest))


def _ptr(rest: str) -> Ptr:
    return Ptr(_target(rest) if rest else None)


def _a(rest: str) -> A:
    return A(*_target_and_prefix(rest))


def _mx(rest: str) -> MxHosts:
    return MxHosts(*_target_and_prefix(rest))


def _ip4(rest: str) -> Network:
    address, prefix = _network(rest)
    try:
        return Network(4, int(IPv4Address(address)), _shift(prefix, 4))
    except AddressValueError:
        raise SpfSyntaxError(f"{_show(address)} is not an IPv4 address") from None


def _ip6(rest: str) -> Network:
    address, prefix = _network(rest)
    if "%" in address:  # a zone, which the library would read
        raise SpfSyntaxError(f"{_show(address)} is not an IPv6 address")
    try:
        return Network(6, int(IPv6Address(address)), _shift(prefix, 6))
    except AddressValueError:
        raise SpfSyntaxError(f"{_show(address)} is not an IPv6 address") from None


_READERS: dict[str, Callable[[str], Mechanism]] = {
    "all": _all,
    "include": _include,
    "a": _a,
    "mx": _mx,
    "ptr": _ptr,
    "ip4": _ip4,
    "ip6": _ip6,
    "exists": _exists,
}


def _target(rest: str) -> MacroString:
    if not rest.startswith(":"):
        raise SpfSyntaxError("a domain is missing")
    return parse_domain_spec(rest[1:])


def _target_and_prefix(rest: str) -> tuple[MacroString | None, Prefix]:
    if not rest.startswith(":"):
        return None, _prefix(rest)
    found = _CIDR_AT_END.search(rest)
    assert found
    return _target(rest[: found.start()]), _prefix(found[0])


def _prefix(text: str) -> Prefix:
    match = _CIDR.fullmatch(text)
    if match is None:
        raise SpfSyntaxError(f"{_show(text)} is not a prefix length")
    return Prefix(_length(match[1], 4), _length(match[2], 6))


def _network(rest: str) -> tuple[str, str]:
    if not rest.startswith(":"):
        raise SpfSyntaxError("an IP address is missing")
    address, slash, prefix = rest[1:].partition("/")
    if slash and not re.fullmatch(r"0|[1-9][0-9]{0,2}", prefix):  # RFC 7208 12: no leading zeros
        raise SpfSyntaxError(f"/{_show(prefix)} is not a prefix length")
    return address, prefix


def _shift(prefix: str, version: int) -> int:
    return _BITS[version] - _length(prefix, version)


def _length(digits: str | None, version: int) -> int:
    length = int(digits) if digits else _BITS[version]
    if length > _BITS[version]:
        raise SpfSyntaxError(f"/{length} is too long a prefix for IPv{version}")
    return length


def _show(text: str) -> str:
    return re.sub(r"[^!-~]", "?", text[:80])
