"""Sign a message with DKIM for those who get it from us (RFC 6376, RFC 8463).

`signable` makes the header canonical once, for all our signatures of it, ARC's too; `sign` gives the DKIM-Signature
fields. The body hash comes from whoever saw the body: it is that of the key `BODY`. The header is the outgoing one
without our own top lines (`survival.Change.after`): with a From of ours in it, if there is one.

What is signed is what the reader goes by: who wrote to whom, when, about what, in which form, in which thread and
list. Each such field is signed as often as it is there. Those of which RFC 5322 3.6 and MIME know one at most are
signed once more than that, so that none can be put on top. Signed are not: trace and results, which the next hops add
to (Received, Return-Path, Delivered-To, X-Forwarded-*, Authentication-Results, ARC-*, DKIM-Signature, RFC 6376 5.4);
Bcc, Comments and Keywords, which are removed or rewritten on the way; X-*, which mean something to one site only.
The Resent-* and List-* fields are RFC 6376 5.4.1's, so are not closed against more on top: the next forwarder or list
may add its own.

Nothing here fails, whatever stands in the header; what is signed verifies. Of a field that is there more than
`MAX_OF_A_NAME` times only so many from the bottom are signed: h= stays short enough for every reader.

Left out on purpose: whose d= it is. A signature says that d= answers for the message: for one whose From is in d='s
own organisation, who signs it makes DMARC pass, so only do that where DMARC passed before.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from forwarder.auth.dkim.canonical import BodyKey, header_relaxed
from forwarder.model.headers import Header
from forwarder.rewrite.signing_key import SigningKey

BODY = BodyKey(relaxed=True)
MAX_OF_A_NAME = 20
WIDTH = 78  # RFC 5322 2.1.1; only a domain or selector can make a line longer

# Closed: nothing of that name can be put on top.
SINGLE = (
    *(b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id"),
    *(b"in-reply-to", b"references", b"mime-version", b"content-type", b"content-transfer-encoding"),
)
# Signed where they are. RFC 8058 4 wants both List-Unsubscribe fields signed.
OPEN = (
    *(b"content-disposition", b"content-description", b"content-id"),
    *(b"resent-date", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-message-id"),
    *(b"list-id", b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post"),
    *(b"list-owner", b"list-archive"),
)

# In the order of h=: how often a name stands there beyond the fields of that name.
_SIGNED = dict.fromkeys(SINGLE, 1) | dict.fromkeys(OPEN, 0)
_KEPT = 128  # lists of names that were written: the next message has mostly the same fields
_CRLF = b"\r\n"
_B64_LINE = 72


@dataclass(frozen=True, slots=True)
class Signable:
    """A message, ready to be signed any number of times. Made by `signable`.

    `names` is what h= says, `canonical` the octets of these fields, relaxed. `body_hash` is the SHA-256 of the relaxed
    body, `time` in Unix seconds.
    """

    header: Header
    names: tuple[bytes, ...]
    canonical: bytes
    body_hash: bytes
    time: int


def signable(header: Header, body_hash: bytes, time: int) -> Signable:
    """Make what our signatures have in common."""
    names: list[bytes] = []
    canonical: list[bytes] = []
    for name, more in _SIGNED.items():
        fields = header.all(name)
        count = min(len(fields) + more, MAX_OF_A_NAME)
        names += [name] * count
        canonical += [header_relaxed(field.raw) for field in fields[: -count - 1 : -1]]  # RFC 6376 5.4.2: bottom up
    return Signable(header, tuple(names), b"".join(canonical), body_hash, time)


def sign(keys: Iterable[SigningKey], what: Signable) -> bytes:
    """Give a complete DKIM-Signature field for each key, to be put on top in any order."""
    return b"".join(_signature(key, what) for key in keys)


def _signature(key: SigningKey, what: Signable) -> bytes:
    # No i=, q=: their defaults are right. No l=, x=: RFC 6376 8.2; mail may wait, and be read later.
    unsigned = draft("DKIM-Signature", ("v=1", *tags_of_message(key, what)), what.names, what.body_hash)
    return complete(unsigned, key.sign(sha256(what.canonical + canonical_draft(unsigned)).digest()))


def tags_of_message(key: SigningKey, what: Signable) -> tuple[str, ...]:
    """Give the tags that a DKIM-Signature and an ARC-Message-Signature share, but for h=, bh= and b=."""
    return (
        f"a={key.algorithm}",
        "c=relaxed/relaxed",
        f"d={key.domain}",
        f"s={key.selector}",
        f"t={what.time}",
    )


def draft(title: str, tags: Iterable[str], names: tuple[bytes, ...] = (), body_hash: bytes = b"") -> bytes:
    """Give a signature's field up to "b=", folded; `names` and `body_hash` make h= and bh=, where there are any."""
    lines = [_folded((f"{title}:", *(f" {tag};" for tag in tags)))]
    if names:
        lines += [_listed(names), f" bh={base64.b64encode(body_hash).decode()};"]
    return "\r\n".join((*lines, " b=")).encode("ascii")


@lru_cache(_KEPT)
def _listed(names: tuple[bytes, ...]) -> str:
    """Write h=, on lines of its own."""
    first, *others = b":\0".join(names).decode().split("\0")
    return _folded((f" h={first}", *others)) + ";"


def _folded(words: Iterable[str]) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) < WIDTH:  # a semicolon may follow
            lines[-1] += word
        else:
            lines.append(f" {word.lstrip()}")
    return "\r\n".join(lines)


def canonical_draft(unsigned: bytes) -> bytes:
    """Give a draft as its signature is over it (RFC 6376 3.7): relaxed, without the last CRLF."""
    return header_relaxed(unsigned).removesuffix(_CRLF)


def complete(unsigned: bytes, signature: bytes) -> bytes:
    """Give the field with its signature, which is folded too."""
    text = base64.b64encode(signature)
    return unsigned + b"\r\n ".join(text[n : n + _B64_LINE] for n in range(0, len(text), _B64_LINE)) + _CRLF
