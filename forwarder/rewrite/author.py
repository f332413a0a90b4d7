"""Write From anew, so that a message which would fail DMARC behind us is honestly from us (`policy.rewriting` decides).

    From: "Alice via forward.example" <shop@forward.example>      the alias, so that our own signature is aligned
    Reply-To: "Alice" <alice@example.org>                         all authors; only if the message has no Reply-To
    X-Original-From: Alice <alice@example.org>                    what From said, for people and filters

`rewrite_author` gives the octets to take out of the original and the fields to put in front, or the reason why it
cannot: then nothing may be changed. It never fails otherwise. What comes out is 7-bit, with lines of at most 78 octets
but for addresses and words that are longer, and always parses as one From with our address alone: names are decoded,
cleaned (`display_name`) and encoded again, addresses written from their parsed values.

- The name is the first author's display name, or else the address as `alice at example.org`: an "@" in a display name
  is a mark of phishing. Of several authors it says how many others there are.
- Only a From is rewritten that DMARC could read for certain: one field, all its addresses of one domain.
- A Reply-To that is there stays, unless it names nobody: no mailbox that can be read (`nobody@`), or more octets than
  anybody reads. Without one every author must be writable in ASCII, or replies would be lost; so must our own address,
  or the message would need SMTPUTF8: the caller may give a fallback.
- Sender, Resent-*, List-* stay: they say who sent or resent it, and that is still true; DMARC does not look at them.
- DKIM-Signature and ARC sets stay, though most signatures cover From and are broken now: they tell a reader who looks
  what the message was, harm nothing (RFC 6376 6.1: as if they were not there), and a seal holds without them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.auth.dmarc.from_header import author_domain
from forwarder.model.address import Address, unicode_name
from forwarder.model.headers import Field, Header
from forwarder.rewrite.display_name import clean, encoded_words, phrase
from forwarder.rewrite.mailboxes import Mailbox, MailboxError, as_text, mailboxes, names_somebody

MAX_OCTETS = 8000  # of a From or Reply-To field; encoded it is three times as long, and Gmail takes 32 kB of one field
_WIDTH = 78  # RFC 5322 2.1.1
_MAX_WORD = 900  # a line has at most 998 octets


@dataclass(frozen=True, slots=True)
class Rewritten:
    """`removed` are octet ranges (start, end) of the original (see `StrippedContent`), `fields` go in front."""

    removed: tuple[tuple[int, int], ...]
    fields: bytes


@dataclass(frozen=True, slots=True)
class Unwritable:
    """From has to stay as it is; `reason` says why, in words for people, printable ASCII."""

    reason: str


def rewrite_author(header: Header, alias: Address, fallback: Address | None = None) -> Rewritten | Unwritable:
    """Rewrite From to `alias`, the address of ours that the mail came for.

    `fallback` takes its place where it cannot stand in a header without SMTPUTF8, or has no domain.
    """
    author = author_domain(header)
    if not author.domain:
        return Unwritable(author.reason)
    ours = next((each for each in (alias, fallback) if each and each.domain and each.is_ascii), None)
    if ours is None:
        return Unwritable("our own address is beyond ASCII")
    (original,) = header.all(b"from")
    if len(original.raw) > MAX_OCTETS:
        return Unwritable(f"the From field is longer than {MAX_OCTETS} octets")
    try:
        authors = mailboxes(original.value)
    except MailboxError as problem:
        return Unwritable(f"the From field cannot be read for certain: {problem}")
    if {each.address.domain for each in authors} != {author.domain}:
        return Unwritable("the From field names no address that can be replied to")
    return _rewritten(header, original, authors, ours)


def _rewritten(header: Header, original: Field, authors: Sequence[Mailbox], ours: Address) -> Rewritten | Unwritable:
    replies = header.all(b"reply-to")
    is_kept = any(len(field.raw) <= MAX_OCTETS and names_somebody(field.value) for field in replies)
    if not is_kept and not all(each.address.is_ascii for each in authors):
        return Unwritable("the author's address is beyond ASCII, so that no Reply-To could name it")
    name = f"{_shown(authors)} via {unicode_name(ours.domain)}"
    fields = _folded("From", [*phrase(name), f"<{ours}>"])
    if not is_kept:
        fields += _folded("Reply-To", _listed(authors))
    fields += _folded("X-Original-From", _as_it_was(original.value))
    return Rewritten(_places(header, [original] if is_kept else [original, *replies]), fields)


def _shown(authors: Sequence[Mailbox]) -> str:
    first = authors[0]
    name = first.name or clean(f"{first.address.local} at {first.address.domain}")
    others = len(authors) - 1
    return f"{name} and {others} other{'s' if others > 1 else ''}" if others else name


def _listed(authors: Sequence[Mailbox]) -> list[str]:
    words: list[str] = []
    for each in dict.fromkeys(authors):
        words += [*(phrase(each.name) if each.name else ()), f"<{each.address}>,"]
    words[-1] = words[-1].removesuffix(",")
    return words


def _as_it_was(value: bytes) -> list[str]:
    """Give the words of a field's value: as they are where they can be, all encoded otherwise."""
    text = " ".join(as_text(value).split())
    words = text.split(" ")
    if text.isascii() and text.isprintable() and max(map(len, words)) <= _MAX_WORD:
        return words
    return encoded_words("".join(each if each.isprintable() else "\ufffd" for each in text))


def _folded(title: str, words: Sequence[str]) -> bytes:
    lines = [f"{title}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) <= _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f" {word}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _places(header: Header, removed: Sequence[Field]) -> tuple[tuple[int, int], ...]:
    """Give where these very fields stand."""
    places = []
    position = 0
    for field in header.fields:
        end = position + len(field.raw)
        if any(field is each for each in removed):
            places.append((position, end))
        position = end
    return tuple(places)
