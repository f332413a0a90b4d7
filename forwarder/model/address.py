"""Mailbox addresses and host names in one canonical form.

An `Address` holds what a mailbox *means*: the local part without quoting, the domain in lower-case A-labels (or a
canonical address literal). Two spellings of one mailbox give equal values; what we write out is built from the
value, never from the octets that came in. Parsing fails with `AddressError`, whose text can be shown to the peer.

Left out on purpose: paths with angle brackets and source routes, ESMTP parameters (`smtp.paths`), and everything
that RFC 5322 allows in headers only (comments, folding, display names).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from unicodedata import is_normalized

# RFC 5321 4.5.3.1.1 names 64 octets of a local part as what everybody must accept; longer ones exist (VERP, SRS).
MAX_DOMAIN = 255  # RFC 5321 4.5.3.1.2
MAX_MAILBOX = 254  # RFC 5321 4.5.3.1.3: a path is 256 octets with its angle brackets
_MAX_IP = 45  # characters of an IPv6 address with dots
_KEPT = 1024  # names, and IP addresses, that were read last

# RFC 5321 4.1.2 dot-string, with RFC 6531 3.3's UTF8-non-ascii. C1 controls and separators are not letters of a name.
# Said by what is no atext: a class that reaches up to U+10FFFF takes milliseconds to compile.
_ATOM = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f-\x9f]+'
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED = re.compile(r'"((?:[^\x00-\x1f"\\\x7f-\x9f]|\\[ -~])*)"')  # RFC 5321 4.1.2 quoted-string, likewise
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # "_" is outside RFC 5321 but in use by real senders
_UNSAFE = re.compile("[\u2028\u2029\ud800-\udfff\ufeff]")


class AddressError(ValueError):
    """Not an address; the text says why, in words that can be shown to whoever wrote it."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox. `domain` is "" only for the bare `<Postmaster>` of RFC 5321 4.5.1."""

    local: str
    domain: str

    def __str__(self) -> str:
        """Write the mailbox as RFC 5321 4.1.2 wants it, quoted only where it must be."""
        local = self.local if _DOT_STRING.fullmatch(self.local) else quote_local(self.local)
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def is_ascii(self) -> bool:
        """Whether the mailbox can travel without SMTPUTF8 (the domain always can)."""
        return self.local.isascii()

    @property
    def key(self) -> tuple[str, str]:
        """What two spellings of one mailbox share: local parts are compared without case."""
        return self.local.casefold(), self.domain


def quote_local(local: str) -> str:
    """Write a local part as a quoted-string (RFC 5321 4.1.2)."""
    return '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'


def parse_mailbox(text: str) -> Address:
    """Read `local@domain` strictly by RFC 5321 4.1.2 and RFC 6531 3.3; raise `AddressError`."""
    if text.startswith('"'):
        match = _QUOTED.match(text)
        if match is None or not text.startswith("@", match.end()):
            raise AddressError("the quoted local part is malformed")
        local, rest = re.sub(r"\\(.)", r"\1", match[1]), text[match.end() + 1 :]
    else:
        local, at, rest = text.partition("@")
        if not at:
            raise AddressError("an address needs an @ and a domain")
        if not _DOT_STRING.fullmatch(local):
            raise AddressError("the part before the @ is malformed")
    if not local or _UNSAFE.search(local):
        raise AddressError("the part before the @ is empty or has characters that no mailbox has")
    address = Address(local, parse_domain(rest))
    if len(str(address).encode()) > MAX_MAILBOX:
        raise AddressError(f"an address is at most {MAX_MAILBOX} octets long")
    return address


def parse_domain(text: str) -> str:
    """Give the canonical form of a domain or address literal; raise `AddressError`."""
    if text.startswith("["):
        return _parse_literal(text)
    return canonical_name(text)


@lru_cache(_KEPT)  # a name is met a dozen times in a message; what is none, however long, is not kept
def canonical_name(text: str) -> str:
    """Give a host or domain name as lower-case A-labels without the root's dot; raise `AddressError`."""
    name = text.removesuffix(".")
    if not name.isascii():
        name = _to_ascii(name)
    name = name.lower()
    if not name or len(name) > MAX_DOMAIN:
        raise AddressError("the domain is empty or too long")
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise AddressError("the domain is malformed")
    return name


def parse_ip(text: str) -> IPv4Address | IPv6Address:
    """Read an IP address as `ipaddress.ip_address` does; raise `ValueError`."""
    return _ip(text) if len(text) <= _MAX_IP else ip_address(text)


def client_ip(text: str) -> IPv4Address | IPv6Address:
    """Read the address of a client, without its zone; an IPv4-mapped one is IPv4 (RFC 4291 2.5.5.2).

    Raises `ValueError`.
    """
    address = parse_ip(text.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


_ip = lru_cache(_KEPT)(ip_address)  # every check of a message reads the client's


def unicode_name(name: str) -> str:
    """Give the U-label form of a canonical name for people to read; itself where it has none."""
    if "xn--" not in name:
        return name
    import idna

    try:
        return idna.decode(name)
    except (idna.IDNAError, UnicodeError):
        return name


def _to_ascii(name: str) -> str:
    import idna  # 20 ms, and few addresses need it

    if len(name) > MAX_DOMAIN:
        raise AddressError("the domain is empty or too long")
    if not is_normalized("NFC", name):  # RFC 5891 5.3; lower() would turn the Kelvin sign into "k"
        raise AddressError("the domain is not a valid internationalised name")
    try:
        # RFC 5891, without UTS 46's mapping: what merely looks like a name of ours must not become it.
        return idna.encode(name.lower(), strict=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise AddressError("the domain is not a valid internationalised name") from None


def _parse_literal(text: str) -> str:
    if not text.endswith("]"):
        raise AddressError("the address literal is not closed")
    inside = text[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":  # RFC 5321 4.1.3
            return f"[IPv6:{IPv6Address(inside[5:]).compressed}]" if "%" not in inside else _bad_literal()
        return f"[{IPv4Address(inside)}]"
    except AddressValueError:
        return _bad_literal()


def _bad_literal() -> str:
    raise AddressError("the address literal is malformed")
