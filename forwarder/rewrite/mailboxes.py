"""The mailboxes in an address field: names and addresses (RFC 5322 3.4, with the obsolete forms of 4.4).

`mailboxes` takes a field that `auth.dmarc.from_header` could read for certain, which gives the domains and judges what
is well-formed; this finds the names and local parts to go with them, in and around groups. It gives them in order or
raises `MailboxError`: for what it cannot read, and for an address that cannot be written again. `names_somebody` looks
at any field: one that has a mailbox among other things is somebody's.

Taken for a name: what stands in front of angle brackets, or else the first comment behind or within a bare address, as
was the custom once. Time is linear. Left out on purpose: names of groups, and routes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from forwarder.auth.dmarc.from_header import comment_end
from forwarder.model.address import Address, AddressError, parse_domain, parse_mailbox
from forwarder.rewrite.display_name import decoded

_TOKEN = re.compile(
    r"""
    (?P<blank>[ \t\r\n]+)
    |"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"
    |(?P<special>[<>@,;:])
    |(?P<atom>[^\x00-\x20\x7f"\\()<>@,;:]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_MAX_PARTS = 50  # an IDN costs up to a millisecond
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class MailboxError(ValueError):
    """The field cannot be read or written again; the text says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """`name` is as readers see it (`display_name.decoded`), "" where there is none."""

    name: str
    address: Address


class _Token(NamedTuple):
    """`kind` is a group of `_TOKEN` or "comment"; `text` is without quotes and escapes."""

    kind: str
    text: str

    def is_special(self, character: str) -> bool:
        return self.kind == "special" and self.text == character


def mailboxes(value: bytes) -> tuple[Mailbox, ...]:
    """Read what follows the colon of an address field."""
    found = (_mailbox(part) for part in _split(list(_tokens(as_text(value)))))
    return tuple(mailbox for mailbox in found if mailbox is not None)


def as_text(value: bytes) -> str:
    """Decode raw octets of a header: UTF-8 (RFC 6532), or else the charset that is most often meant."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("cp1252", "replace")


def names_somebody(value: bytes) -> bool:
    """Say whether an address field names a mailbox that can be read, whatever else it holds. Never raises.

    Of more than `_MAX_PARTS` entries only so many are looked at.
    """
    try:
        parts = list(islice(_split(list(_tokens(as_text(value)))), _MAX_PARTS))
    except MailboxError:  # where one entry ends and the next begins is not certain
        return False
    return any(map(_is_mailbox, parts))


def _is_mailbox(part: Sequence[_Token]) -> bool:
    try:
        return _mailbox(part) is not None
    except MailboxError:
        return False


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        if text[position] == "(":
            end = comment_end(text, position)
            if not end:
                raise MailboxError("a comment is not closed")
            yield _Token("comment", _ESCAPE.sub(r"\1", text[position + 1 : end - 1]))
        else:
            match = _TOKEN.match(text, position)
            if match is None:
                raise MailboxError("a character is out of place")
            kind = match.lastgroup or ""
            yield _Token(kind, _ESCAPE.sub(r"\1", match[kind]) if kind == "quoted" else match[kind])
            end = match.end()
        position = end


def _split(tokens: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
    """Split at commas, and at the marks of groups, whose names go; not within angle brackets."""
    start = 0
    is_inside = False
    for index, token in enumerate(tokens):
        if token.kind != "special":
            continue
        if token.text in "<>":
            is_inside = token.text == "<"
        elif token.text in ",:;" and not is_inside:
            if token.text != ":":
                yield tokens[start:index]
            start = index + 1
    yield tokens[start:]


def _mailbox(tokens: Sequence[_Token]) -> Mailbox | None:
    """Read `name <address>` or `address (name)`; None where there is no address."""
    opening = next((n for n, token in enumerate(tokens) if token.is_special("<")), None)
    if opening is None:
        if not any(token.is_special("@") for token in tokens):
            return None
        name, spec = "", tokens
    else:
        closing = next((n for n, token in enumerate(tokens) if token.is_special(">")), len(tokens))
        name, spec = _name(tokens[:opening]), tokens[opening + 1 : closing]
    comment = next((token.text for token in tokens if token.kind == "comment"), "")
    return Mailbox(name or decoded(comment), _address(spec))


def _name(tokens: Sequence[_Token]) -> str:
    return decoded("".join(" " if token.kind in ("blank", "comment") else token.text for token in tokens))


def _address(tokens: Sequence[_Token]) -> Address:
    """Read local@domain, behind a route if there is one (RFC 5322 4.4)."""
    spec = [token for token in tokens if token.kind not in ("blank", "comment")]
    colon = next((n for n, token in enumerate(spec) if token.is_special(":")), None)
    if colon is not None:
        spec = spec[colon + 1 :]
    ats = [n for n, token in enumerate(spec) if token.is_special("@")]
    if len(ats) != 1:
        raise MailboxError("an address has not exactly one @")
    local, domain = ("".join(token.text for token in part) for part in (spec[: ats[0]], spec[ats[0] + 1 :]))
    try:
        address = Address(local, parse_domain(domain))
        parse_mailbox(str(address))  # what a quoted local part holds may be beyond writing
    except AddressError as error:
        raise MailboxError(str(error)) from None
    return address
