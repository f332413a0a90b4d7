"""Odd messages that others have signed: by dkimpy, by OpenDKIM and by our own signers, in every way there is.

`signed_by_others` gives them; `records` is what their keys publish. Keys are made once for the process. Signatures are
good, but for the one of `changed`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import dkim

from forwarder.rewrite.sign import sign as sign_as_product
from forwarder.rewrite.signing_key import load_key
from tests.auth.dkim import opendkim, signer
from tests.corpus.odd import HEADER
from tests.corpus.signed import CANONICAL
from tests.rewrite.judges import pem, prepared

AUTHOR = "sender.test"  # whom the messages are from
LIST = "list.test"  # a third party
_FOLDED = HEADER + b"X-Folded: one\r\n  two\t \r\n\tthree\r\nX-Empty:\r\n"
_MIME = HEADER + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n'

BASES = {
    "folded": _FOLDED + "\r\nGrüße \t \r\n\r\n.dot\r\n  indented   text \r\nFrom here\r\n\r\n\r\n".encode(),
    "empty": HEADER + b"\r\n",
    "blank-lines": HEADER + b"\r\n\r\n\r\n \t \r\ntext\r\n" + b"\r\n" * 30,
    "white-space": HEADER + b"\r\ntext \r\n\ttext\t\r\n \r\na  b\t\tc\r\n",
    "parts": _MIME + b"\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<b>two</b>\r\n--b--\r\n.\r\n",
    "long-lines": HEADER + b"\r\n" + b"x" * 998 + b"\r\n" + b"y " * 40_000 + b"\r\n",
}


@dataclass(frozen=True, slots=True)
class Signed:
    """One message."""

    name: str
    octets: bytes


def _pem() -> bytes:
    return pem(signer.rsa_key().private)


def records() -> Mapping[str, str]:
    """Give the key records by name."""
    kinds = {"lab": signer.rsa_key(), "ed": signer.ed25519_key()}
    return {f"{name}._domainkey.{domain}": key.record for domain in (AUTHOR, LIST) for name, key in kinds.items()}


def by_dkimpy(octets: bytes, canonical: str = "relaxed/relaxed", domain: str = AUTHOR, **options: object) -> bytes:
    """Sign with dkimpy."""
    head, body = (part.encode() for part in canonical.split("/"))
    return bytes(dkim.sign(octets, b"lab", domain.encode(), _pem(), canonicalize=(head, body), **options)) + octets


def by_opendkim(octets: bytes, canonical: str = "relaxed/relaxed", domain: str = AUTHOR) -> bytes:
    """Sign with libopendkim; the message as it is where that is missing."""
    if opendkim.LIBRARY is None:
        return octets
    return opendkim.OpenDkim(opendkim.LIBRARY, _pem(), b"").sign(octets, canonical, "lab", domain)


def by_product(octets: bytes, domain: str = AUTHOR) -> bytes:
    """Sign as another gateway of our kind would, with both keys."""
    keys = (load_key(_pem(), domain, "lab"), load_key(pem(signer.ed25519_key().private), domain, "ed"))
    return sign_as_product(keys, prepared(octets)) + octets


def by_any_tags(octets: bytes, **tags: str | None) -> bytes:
    """Sign with the tags that are given."""
    return signer.sign(octets, None, **{"t": None, **tags})


def by_ed25519(octets: bytes, canonical: str, domain: str = AUTHOR) -> bytes:
    """Sign with Ed25519 (RFC 8463)."""
    return signer.sign(octets, signer.ed25519_key(), t=None, s="ed", d=domain, c=canonical)


@cache
def signed_by_others() -> tuple[Signed, ...]:
    """Give all of them."""
    return tuple(Signed(name, octets) for name, octets in _all())


def _all() -> Iterator[tuple[str, bytes]]:
    for base, octets in BASES.items():
        for canonical in CANONICAL:
            words = f"{base}-{canonical.replace('/', '-')}"
            yield f"dkimpy-{words}", by_dkimpy(octets, canonical)
            yield f"opendkim-{words}", by_opendkim(octets, canonical)
        yield f"product-{base}", by_product(octets)
    octets = BASES["folded"]
    for canonical in CANONICAL:
        words = canonical.replace("/", "-")
        yield f"ed25519-{words}", by_ed25519(octets, canonical)
        yield f"length-{words}", by_dkimpy(octets, canonical, length=True)
        yield f"length-and-more-{words}", by_dkimpy(octets, canonical, length=True) + b"appended\r\n"
    yield from _several(octets)
    yield from _peculiar(octets)


def _several(octets: bytes) -> Iterator[tuple[str, bytes]]:
    yield "by-all-of-them", by_product(by_opendkim(by_dkimpy(octets, "simple/simple")))
    yield "by-a-list-too", by_dkimpy(by_dkimpy(octets), domain=LIST)
    yield "by-a-list-alone", by_opendkim(octets, domain=LIST)
    yield "rsa-and-ed25519", by_ed25519(by_dkimpy(octets, "simple/relaxed"), "relaxed/simple")
    ten = octets
    for number in range(10):
        ten = by_any_tags(ten, i=f"@n{number}.{AUTHOR}", c=CANONICAL[number % 4])
    yield "ten-times", ten


def _peculiar(octets: bytes) -> Iterator[tuple[str, bytes]]:
    yield "oversigned", by_any_tags(octets, h="from:from:to:to:subject:subject:date:date:cc:reply-to:x-nothing")
    yield "simple-oversigned", by_any_tags(octets, h="from:from:to:subject:x-folded:x-folded", c="simple/simple")
    yield "names-our-fields", by_any_tags(octets, h="from:x-forwarded-to:x-forwarded-for:delivered-to")
    yield "names-results", by_any_tags(octets, h="from:authentication-results:subject")
    yield "from-alone", by_any_tags(octets, h="from")
    yield "in-capitals", by_any_tags(octets, h="FROM:Subject:TO", d=AUTHOR.upper())
    yield "of-an-identity-below", by_any_tags(octets, i=f"me@below.{AUTHOR}")
    yield "covers-a-signature", by_any_tags(by_dkimpy(octets), h="from:dkim-signature")
    yield "changed", by_dkimpy(octets).replace(b"indented", b"indeeded")
    trace = b"Received: by a.test; Sun, 22 Nov 2026 09:00:00 +0000\r\nReturn-Path: <a@b.test>\r\n"
    yield "below-a-trace", trace + by_dkimpy(octets)
    yield "covers-no-trace", by_any_tags(trace + octets, h="from:return-path")
    yield "with-a-long-tag", by_any_tags(octets, note="x" * 3000)
