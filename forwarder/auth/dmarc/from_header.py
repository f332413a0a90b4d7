"""The author's domain: what the From field says it is (RFC 5322 3.4, 3.6.2; RFC 9989 5.3.1).

`author_domain` gives one domain, or the reason why there is none. Exactly one From field must be there, well-formed
enough to be sure, and all its addresses must be of one domain: of each mailbox, in and around groups. What stands in
front of an address in angle brackets is a name, quoted or not, and so are quotes and comments; encoded words (RFC 2047)
are never decoded, for no address may be hidden in one.

Without one domain, `named` has every domain that some reader might take for the author's, and of a malformed field
whatever looks like one: `a@good.example, b@evil.example` is judged by the stricter policy of the two. Taken as they
are: missing quotes around `Doe, Jane`, dots out of place in local parts, obsolete routes and white space, raw 8-bit
display names. IDN come out as A-labels. An address literal is nobody's domain.

Time is linear in the field; one over `MAX_OCTETS` or of more than `MAX_ADDRESSES` addresses counts as malformed.
Left out on purpose: local parts, display names, and what they pretend.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from forwarder.model.address import AddressError, parse_domain
from forwarder.model.headers import Header

MAX_OCTETS = 32_768  # what the big receivers take of one field
MAX_ADDRESSES = 50  # an IDN costs up to a millisecond
MAX_NAMED = 4  # domains of one message whose policies are asked for
_MAX_TOKENS = 5000  # words and marks
_SHOWN = 4  # domains named in a reason
_SEVERAL = "there are several From fields"
_CACHED_OCTETS = 1000
_AFTER_AT = re.compile(r"@[ \t]*([^\s<>()@,;:\"\\\[\]]+)")

# Letters of RFC 5322 3.2.3 atext, and whatever else is printable; encoded words are atoms (RFC 2047 5).
_TOKEN = re.compile(
    r"""
    (?P<blank>[ \t]+)
    |(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<literal>\[[^\[\]\\]*\])
    |(?P<special>[<>@,;:.])
    |(?P<atom>[^\x00-\x20\x7f"\\()\[\]<>@,;:.]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_COMMENT = re.compile(r"[^()\\]+|\\.|[()]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Author:
    """The author domain as A-labels, or "" and the reason. The reason quotes nothing but canonical domains.

    `claimed` is False where the message does not even pretend to be of some domain: nobody is impersonated by that.
    `named` are the domains that are named where there are several claims, empty if they cannot all be told. `certain`
    is False for a malformed field, of which each reader makes something else, also what is not among `named`.
    """

    domain: str
    reason: str = ""
    claimed: bool = True
    named: tuple[str, ...] = ()
    certain: bool = True


class _FromError(ValueError):
    """The field cannot be read for certain; the text says why."""


class _Token(NamedTuple):
    """A piece of a structured field: its kind is a group of `_TOKEN`."""

    kind: str
    text: str

    @property
    def is_word(self) -> bool:
        return self.kind in ("atom", "quoted")

    def is_special(self, characters: str) -> bool:
        return self.kind == "special" and self.text in characters


def author_domain(header: Header) -> Author:
    """Find the one domain that a message claims to be from."""
    fields = header.all(b"from")[: MAX_NAMED + 1]
    hidden = tuple(field for _, field in header.beyond if field.name == b"from")[: MAX_NAMED + 1]
    values = tuple(field.value for field in (*fields, *hidden))
    read = _author if sum(map(len, values)) <= _CACHED_OCTETS else _author.__wrapped__
    return read(values, bool(hidden))


@lru_cache(maxsize=256)  # it is asked for twice a message, and senders send more than one
def _author(values: Sequence[bytes], hidden: bool) -> Author:
    if not values:
        return Author("", "there is no From field", claimed=False)
    try:
        domains = list(dict.fromkeys(domain for value in values for domain in _domains(value)))
    except _FromError as problem:
        return replace(_unclear(f"the From field is malformed: {problem}", _resembling(values)), certain=False)
    if hidden or len(values) > 1:  # RFC 5322 3.6: exactly one
        reason = "a From field stands behind a line that is no header field" if hidden else _SEVERAL
        return _unclear(reason, domains)
    if len(domains) != 1:  # RFC 9989 5.3.1
        several = f"the From field names several domains: {', '.join(domains[:_SHOWN])}"
        return _unclear(several if domains else "the From field names no domain", domains)
    return Author(domains[0])


def _unclear(reason: str, domains: Sequence[str]) -> Author:
    return Author("", reason, bool(domains), tuple(domains) if len(domains) <= MAX_NAMED else ())


def _resembling(values: Sequence[bytes]) -> list[str]:
    """Give whatever looks like the domain of an address in fields that cannot be read for certain."""
    found: dict[str, None] = {}
    for value in values:
        text = value.decode("utf-8", "replace")
        for spelt in (text, _joined(text)):
            for match in islice(_AFTER_AT.finditer(spelt), MAX_ADDRESSES):
                try:
                    found[parse_domain(match[1].strip("."))] = None
                except AddressError:
                    continue
    return list(found)


def _joined(text: str) -> str:
    """Leave out comments, and white space around dots and "@" (RFC 5322 4.4), as lenient readers do."""
    depth = 0
    kept = []
    for piece in _IN_COMMENT.findall(text):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(0, depth - 1)
        elif not depth:
            kept.append(piece)
    line = " ".join("".join(kept).split())
    return line.replace(" .", ".").replace(". ", ".").replace(" @", "@").replace("@ ", "@")


def _domains(value: bytes) -> list[str]:
    """Give the different domains in a From field, in order."""
    if len(value) > MAX_OCTETS:
        raise _FromError(f"it is longer than {MAX_OCTETS} octets")
    tokens = list(islice(_tokens(value.decode("utf-8", "replace")), _MAX_TOKENS + 1))
    if len(tokens) > _MAX_TOKENS:
        raise _FromError(f"it has more than {_MAX_TOKENS} words")
    if sum(token.is_special("@") for token in tokens) > MAX_ADDRESSES:
        raise _FromError(f"it has more than {MAX_ADDRESSES} addresses")
    return list(dict.fromkeys(domain for mailbox in _mailboxes(tokens) for domain in _domains_of(mailbox)))


def _tokens(text: str) -> Iterator[_Token]:
    """Give the tokens without white space and comments (RFC 5322 3.2.2)."""
    position = 0
    while position < len(text):
        if text[position] == "(":
            position = comment_end(text, position)
            if not position:
                raise _FromError("a comment is not closed")
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise _FromError("it has a character out of place, or quotes that are not closed")
        position = match.end()
        if match.lastgroup != "blank":
            yield _Token(match.lastgroup or "", match[0])


def comment_end(text: str, position: int) -> int:
    """Give the place behind the comment that begins at `position`, 0 if it is not closed; comments nest."""
    depth = 0
    while match := _IN_COMMENT.match(text, position):
        position = match.end()
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if not depth:
            return position
    return 0


def _mailboxes(tokens: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
    """Split at commas, and around the names and ends of groups, but not within angle brackets (a route has commas)."""
    start = 0
    is_inside = False
    for index, token in enumerate(tokens):
        if token.is_special("<>"):
            is_inside = token.text == "<"
        elif token.is_special(",:;") and not is_inside:
            yield tokens[start:index]
            start = index + 1
    yield tokens[start:]


def _domains_of(mailbox: Sequence[_Token]) -> Iterator[str]:
    """Give the domains of `name <local@domain>`, of `local@domain`, or of a mere name (none)."""
    brackets = _places(mailbox, "<>")
    if not brackets:
        if _places(mailbox, "@"):
            yield from _domain(mailbox)
        return
    if [mailbox[index].text for index in brackets] != ["<", ">"]:
        raise _FromError("its angle brackets do not match")
    opening, closing = brackets
    if closing != len(mailbox) - 1:
        raise _FromError("something follows an address in angle brackets")
    yield from _domain(_without_route(mailbox[opening + 1 : closing]))


def _without_route(spec: Sequence[_Token]) -> Sequence[_Token]:
    """Drop `@one,@two:` in front of an address (RFC 5322 4.4)."""
    colons = _places(spec, ":")
    if not colons:
        return spec
    if len(colons) > 1 or not spec[0].is_special("@"):
        raise _FromError("a colon is out of place")
    return spec[colons[0] + 1 :]


def _domain(spec: Sequence[_Token]) -> Iterator[str]:
    """Give the domain of local@domain (RFC 5322 3.4.1, with the white space and comments of 4.4); none of a literal."""
    ats = _places(spec, "@")
    if len(ats) != 1:
        raise _FromError("an address has not exactly one @")
    local, domain = spec[: ats[0]], spec[ats[0] + 1 :]
    if not any(token.is_word for token in local) or not _is_dotted(local):
        raise _FromError("the part before an @ is malformed")
    if [token.kind for token in domain] == ["literal"]:  # nobody could publish a policy for it
        return
    if any(token.kind == "quoted" for token in domain) or not _is_dotted(domain):
        raise _FromError("the domain of an address is malformed")
    try:
        yield parse_domain("".join(token.text for token in domain))
    except AddressError as error:
        raise _FromError(str(error)) from None


def _is_dotted(tokens: Sequence[_Token]) -> bool:
    """Say whether these are words and dots, and no two words stand side by side."""
    if not all(token.is_word or token.is_special(".") for token in tokens):
        return False
    return not any(one.is_word and two.is_word for one, two in pairwise(tokens))


def _places(tokens: Sequence[_Token], characters: str) -> list[int]:
    return [index for index, token in enumerate(tokens) if token.is_special(characters)]
