"""The Sender Rewriting Scheme: envelope senders that are ours, yet lead back to the true sender.

SPF checks the host that hands a message on, so a forwarder must send with a domain of its own; bounces then come to
that domain and must find their way back, without the domain becoming an open relay. The original sender is therefore
written into the local part and signed. Source: Wong's SRS paper (2004) with the layout of libsrs2 and PostSRSd:

    a@b.example                        SRS0=TAG=TT=b.example=a@ours            a plain sender
    SRS0+x=TT=b=a@hop.example          SRS1=TAGTT=hop.example=+x=TT=b=a@ours   another forwarder's: kept as it is
    SRS1=x=hop.example==y=TT=b=a@two   SRS1=TAGTT=hop.example==y=TT=b=a@ours   a third one's: points to the first hop

TT is the day (since 1970-01-01 UTC, modulo 1024) in two base32 characters. TAG is the beginning (40 bits) of
an HMAC-SHA-256 in base32. It covers the kind, the stamp and both parts of the address in lower case, so that it
survives hops that fold case; they are separated by NUL, which no address holds. The whole tag is compared, in
constant time, with the tag of every secret. In SRS1 the stamp is part of the first field, which other forwarders
treat as opaque: so our SRS1 addresses age as well.

Decisions:

- An SRS address of ours passes unchanged (it came back in a loop, and a second layer would only grow), but it must
  decode. An SRS1 whose first hop is ours becomes our SRS0 again, on the same condition. Any other sender at our SRS
  domain is rewritten like a stranger's, which it is: nobody sends from there.
- What resembles SRS0 or SRS1 but does not have its fields is a plain address. So is one whose domain is no domain.
- A local part over 64 octets is sent as it is: receivers take it, and Google's and Microsoft's own rewriting does so.
  Nothing can be cut without keeping state: everything after the tag is needed to find the way back, 40 bits are the
  least a tag should have, and other forwarders must recognise the form. A mailbox of over 254 octets is an
  `SrsError`: the sender is to be refused with 553 5.1.7.
- An address literal as domain makes a quoted local part, and round trips.

Everything that fails is an `SrsError`, and permanent. The day and the secrets are parameters. Left out on purpose: the
null sender (it stays null: nobody calls this), state, SRS without signature.
"""

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.model.address import Address, AddressError, canonical_name, parse_domain, parse_mailbox

TAG_LENGTH = 8  # base32 characters: 40 bits; only online guesses are possible, and they are counted
_TAG_OCTETS = TAG_LENGTH * 5 // 8
_CYCLE = 1024  # days that a stamp can tell apart
MAX_AGE_LIMIT = _CYCLE // 2  # days: the other half of the cycle is the future
_SKEW = 1  # days by which a stamp may be ahead: clocks of two machines around midnight
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SEPARATORS = ("=", "+", "-")

_SRS = re.compile(r"(SRS[01])([=+-])(.+)", re.IGNORECASE | re.ASCII | re.DOTALL)
_SRS0_REST = re.compile(
    r"[=+-][^=]+=[^=]+=[^=]+=.+", re.DOTALL
)  # what follows "SRS0": separator, hash, stamp, domain, local


class SrsError(ValueError):
    """The address cannot be rewritten, or not be reversed; the text says why, in words for whoever sent it."""


@dataclass(frozen=True, slots=True)
class _Signed:
    """The fields of an SRS address of ours. `host` and `rest` are the domain and local part of what it leads to;
    for SRS1 `rest` is what follows "SRS0" in it."""

    kind: str
    tag: str
    stamp: str
    host: str
    rest: str


class Srs:
    """Rewrites senders to `domain` and back. The first secret signs, all verify; the age limit is in days."""

    def __init__(self, domain: str, secrets: Sequence[bytes], max_age_days: int, separator: str = "=") -> None:
        if not secrets or not all(secrets):
            raise ValueError("SRS needs at least one secret, and none may be empty")
        if not 1 <= max_age_days <= MAX_AGE_LIMIT:
            raise ValueError(f"the greatest age of an SRS address is from 1 to {MAX_AGE_LIMIT} days")
        if separator not in _SEPARATORS:
            raise ValueError("the separator of SRS is one of = + -")
        self.domain = canonical_name(domain)
        self._secrets = tuple(secrets)
        self._max_age = max_age_days
        self._separator = separator

    def is_ours(self, address: Address) -> bool:
        """Whether it has our domain and begins as SRS does; it may still be forged or old."""
        return address.domain == self.domain and _SRS.match(address.local) is not None

    def encode(self, sender: Address, day: int) -> Address:
        """Give the sender to use instead of `sender` on that day (since 1970-01-01 UTC); raise `SrsError`."""
        sender = _checked(sender.local, sender.domain)
        if self.is_ours(sender):
            self.decode(sender, day)
            return sender
        kind, host, rest = _leads_to(sender)
        if kind == "SRS1" and host == self.domain:
            return self.encode(Address(f"SRS0{rest}", host), day)
        return self._sign(kind, host, rest, day)

    def decode(self, address: Address, day: int) -> Address:
        """Give the sender that one of our addresses stands for; raise `SrsError` unless it is ours, whole and fresh."""
        signed = self._parse(address)
        self._verify(signed)
        self._check_age(_age(signed.stamp, day))
        return _checked(f"SRS0{signed.rest}" if signed.kind == "SRS1" else signed.rest, signed.host)

    def age(self, address: Address, day: int) -> int:
        """Give the days since one of our addresses was made (-1: tomorrow's), valid or not; raise `SrsError`."""
        return _age(self._parse(address).stamp, day)

    def _sign(self, kind: str, host: str, rest: str, day: int) -> Address:
        stamp = _stamp(day)
        tag = _tag(self._secrets[0], kind, stamp, host, rest).decode("ascii")
        fields = f"{tag}={stamp}" if kind == "SRS0" else f"{tag}{stamp}"
        return _checked(f"{kind}{self._separator}{fields}={host}={rest}", self.domain)

    def _parse(self, address: Address) -> _Signed:
        match = _SRS.fullmatch(address.local)
        if address.domain != self.domain or match is None:
            raise SrsError("this is not an SRS address of ours")
        fields = match[3].split("=", 3 if match[1][-1] == "0" else 2)
        if match[1][-1] == "0" and len(fields) == 4:
            return _Signed("SRS0", fields[0], fields[1], fields[2], fields[3])
        if match[1][-1] == "1" and len(fields) == 3:
            return _Signed("SRS1", fields[0][:-2], fields[0][-2:], fields[1], fields[2])
        raise SrsError("the SRS address is incomplete")

    def _verify(self, signed: _Signed) -> None:
        expected = [_tag(secret, signed.kind, signed.stamp, signed.host, signed.rest) for secret in self._secrets]
        # compare_digest refuses another length; all are compared, so that the time does not tell which secret it was.
        genuine = [hmac.compare_digest(_upper(signed.tag), tag) for tag in expected]
        if not any(genuine):
            raise SrsError("the SRS address is not genuine")

    def _check_age(self, age: int) -> None:
        if age > self._max_age:
            raise SrsError(
                "the SRS address has expired" if age <= MAX_AGE_LIMIT else "the SRS address is from the future"
            )


def _checked(local: str, domain: str) -> Address:
    """Give the mailbox as anybody would read it: what is not an address cannot leave this module."""
    try:
        return parse_mailbox(str(Address(local, domain)))
    except AddressError as error:
        raise SrsError(str(error)) from None


def _leads_to(sender: Address) -> tuple[str, str, str]:
    """Give which kind of address to make of a sender that is not ours, with the domain and the rest to put there."""
    plain = ("SRS0", sender.domain, sender.local)
    match = _SRS.fullmatch(sender.local)
    if match is None:
        return plain
    if match[1][-1] == "0":
        rest = match[2] + match[3]
        return ("SRS1", sender.domain, rest) if _SRS0_REST.fullmatch(rest) else plain
    fields = match[3].split("=", 2)
    if len(fields) < 3 or not fields[0] or not _SRS0_REST.fullmatch(fields[2]):
        return plain
    try:
        return "SRS1", parse_domain(fields[1]), fields[2]
    except AddressError:
        return plain


def _tag(secret: bytes, kind: str, stamp: str, host: str, rest: str) -> bytes:
    folded_rest = rest.lower().encode("utf-8", "surrogatepass")  # the only part that may be UTF-8
    material = b"\0".join((kind.encode(), _upper(stamp), _upper(host), folded_rest))
    return base64.b32encode(hmac.digest(secret, material, "sha256")[:_TAG_OCTETS])


def _upper(text: str) -> bytes:
    """Fold ASCII alone: "\u017f".upper() would be "S"."""
    return text.encode("utf-8", "surrogatepass").upper()


def _stamp(day: int) -> str:
    high, low = divmod(day % _CYCLE, 32)
    return _ALPHABET[high] + _ALPHABET[low]


def _age(stamp: str, day: int) -> int:
    try:
        high, low = (_ALPHABET.index(character) for character in _upper(stamp).decode("ascii"))
    except ValueError:  # another letter, beyond ASCII, or not two of them
        raise SrsError("the day of the SRS address is malformed") from None
    age = (day - high * 32 - low) % _CYCLE
    return age - _CYCLE if age >= _CYCLE - _SKEW else age
