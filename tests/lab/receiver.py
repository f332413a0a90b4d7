"""A receiver that judges mail by other programs than ours: DKIM by dkimpy, DMARC by OpenDMARC's library.

`dmarc` says what becomes of a message at its destination (RFC 7489, with the public suffix list). It is evaluated in a
few lines here, and by libopendmarc where that is installed: the two must agree, or it is an `AssertionError`.

`Published` is what DNS holds of TXT records, for these judges and in the lab's name server alike.
"""

import ctypes
import re
from collections.abc import Iterator
from ctypes.util import find_library
from dataclasses import dataclass, field
from email import message_from_bytes
from email.utils import getaddresses
from functools import cache
from pathlib import Path

import dkim
from publicsuffixlist import PublicSuffixList

from forwarder.rewrite.signing_key import SigningKey, public_record
from tests.lab.gateway import Gateway
from tests.lab.world import World
from tests.rewrite import judges

SUFFIXES = Path("/usr/share/publicsuffix/effective_tld_names.dat")
_PASS, _BY_MAIL_FROM, _IPV4 = 1, 1, 4  # opendmarc/dmarc.h
_WORDS = {14: "none", 15: "pass", 16: "fail", 17: "fail", 18: "fail", 19: "fail"}  # what it says to enforce
_UNREADABLE = (dkim.DKIMException, IndexError, ValueError)  # how dkimpy refuses what it cannot read

assert judges  # dkimpy needs what that module gives it to read Ed25519


@dataclass
class Published:
    """TXT records, one of each name."""

    world: World
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, text: str) -> None:
        """Publish a record, here and in the lab's DNS; one that is there already stays."""
        if self.texts.setdefault(name, text) is text:
            self.world.dns.replace(name, "TXT", text)

    def find(self, name: bytes, timeout: int = 5) -> bytes:
        """Answer dkimpy."""
        return self.texts.get(name.decode().rstrip(".").lower(), "").encode()

    def give_keys(self, gateway: Gateway, *keys: SigningKey) -> None:
        """Put keys where the gateway takes them from, and publish them."""
        for key in keys:
            place = gateway.folder / "state" / "keys" / key.domain
            for folder in (place.parent, place):
                folder.mkdir(mode=0o700, exist_ok=True)
            file = place / f"{key.selector}.pem"
            file.touch(mode=0o600)
            file.write_bytes(key.pem())
            self.add(key.name, public_record(key))


@dataclass(frozen=True, slots=True)
class Good:
    """A signature that dkimpy has found good."""

    domain: str
    selector: str


def signatures(octets: bytes, published: Published) -> list[Good | None]:
    """Have dkimpy verify every DKIM-Signature, topmost first; None for one that is not good, or not readable to it."""
    try:
        found = [value for name, value in dkim.DKIM(octets).headers if name.lower() == b"dkim-signature"]
    except _UNREADABLE:
        return []
    return [_verified(octets, number, value, published) for number, value in enumerate(found)]


def _verified(octets: bytes, number: int, value: bytes, published: Published) -> Good | None:
    try:
        good = dkim.DKIM(octets).verify(number, published.find)
    except _UNREADABLE:
        return None
    tags = dict(re.findall(r"(?:^|;)([a-z]+)=([^;]*)", re.sub(r"\s", "", value.decode("ascii", "replace"))))
    return Good(tags["d"].lower(), tags["s"]) if good else None


def chain(octets: bytes, published: Published) -> str:
    """Have dkimpy validate the ARC chain."""
    status, _, _ = dkim.arc_verify(octets, dnsfunc=published.find)
    return (status or b"none").decode()


def author(octets: bytes) -> str:
    """Give the domain of From, "" unless there is exactly one."""
    fields = message_from_bytes(octets).get_all("From") or []
    domains = {address.rpartition("@")[2].lower() for _, address in getaddresses([str(each) for each in fields])}
    return domains.pop() if len(fields) == len(domains) == 1 else ""


def dmarc(octets: bytes, sender: str, published: Published) -> str:
    """Say "pass", "fail" or "none". `sender` is that of the envelope, for whose domain SPF passes."""
    name = author(octets)
    if not name:
        return "fail"  # nothing could be aligned
    record = published.texts.get(f"_dmarc.{name}") or published.texts.get(f"_dmarc.{_organisation(name)}")
    if record is None:
        return "none"
    good = [each for each in signatures(octets, published) if each is not None]
    by_spf = sender.rpartition("@")[2].lower()
    strict = {tag: f"{tag}=s" in record for tag in ("adkim", "aspf")}
    passes = any(_aligned(each.domain, name, strict=strict["adkim"]) for each in good)
    passes |= bool(by_spf) and _aligned(by_spf, name, strict=strict["aspf"])
    found = "pass" if passes else "fail"
    other = _by_opendmarc(name, record, [each.domain for each in good], by_spf)
    # OpenDMARC takes a signature of any name above the author's for aligned, that of a public suffix too.
    agreed = other in (found, "") or any(_is_suffix_of(each.domain, name) for each in good)
    assert agreed, (name, record, good, by_spf, found, other)
    return found


def _is_suffix_of(suffix: str, name: str) -> bool:
    return name.endswith("." + suffix) and _organisation(suffix) != _organisation(name)


def _aligned(one: str, name: str, *, strict: bool) -> bool:
    return one == name or (not strict and _organisation(one) == _organisation(name))


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def _organisation(name: str) -> str:
    return str(_suffixes().privatesuffix(name) or name)


# OpenDMARC


@cache
def _library() -> ctypes.CDLL | None:
    name = find_library("opendmarc")
    if name is None or not SUFFIXES.is_file():
        return None
    library = ctypes.CDLL(name)
    library.opendmarc_policy_connect_init.restype = ctypes.c_void_p
    assert library.opendmarc_tld_read_file(str(SUFFIXES).encode(), b"//", b"*.", b"!") == 0
    return library


def _by_opendmarc(name: str, record: str, good: list[str], by_spf: str) -> str:
    """Say what OpenDMARC makes of it; "" where it is missing."""
    library = _library()
    if library is None:
        return ""
    policy = ctypes.c_void_p(library.opendmarc_policy_connect_init(b"192.0.2.1", _IPV4))
    try:
        assert list(_told(library, policy, name, record, good, by_spf)) == [0] * (2 + len(good) + bool(by_spf))
        return _WORDS[library.opendmarc_get_policy_to_enforce(policy)]
    finally:
        library.opendmarc_policy_connect_shutdown(policy)


def _told(
    library: ctypes.CDLL, policy: ctypes.c_void_p, name: str, record: str, good: list[str], by_spf: str
) -> Iterator[int]:
    yield library.opendmarc_policy_store_from_domain(policy, name.encode())
    for domain in good:
        yield library.opendmarc_policy_store_dkim(policy, domain.encode(), b"s", _PASS, None)
    if by_spf:
        yield library.opendmarc_policy_store_spf(policy, by_spf.encode(), _PASS, _BY_MAIL_FROM, None)
    yield library.opendmarc_policy_store_dmarc(policy, record.encode(), name.encode(), _organisation(name).encode())
