r"""Where a rule sends: fixed mailboxes, and templates that are filled in for each recipient.

A template holds `${local}` (the whole local part, as the sender wrote it), `${tag}` (what follows its first "+"),
`${domain}` (the recipient's domain) or `\1` … `\9` (captures of the rule's expression). `*@other.example` is short for
`${local}@other.example`.

What is filled in can never become more than it was: the local part is put together as a value and quoted as one, the
domain as a name, and the whole is parsed again. A domain may vary only below two fixed labels (`\1.example.com`), or
be `${domain}` alone: otherwise a stranger could name any domain, and the rule would be an open relay.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache

from forwarder.model.address import Address, AddressError, canonical_name, parse_mailbox, quote_local
from forwarder.model.destination import Destination, Hop

_SUBSTITUTION = re.compile(r"\$\{([^}]*)\}|\\(.?)")
_FIXED_END = re.compile(r"\.[^.]+\.[^.]+\.?$")


_ATOMS = re.compile(r"([A-Za-z0-9_=~-]+(?:[.+][A-Za-z0-9_=~-]+)*)@([A-Za-z0-9.-]+)")
_SHORT = 250  # characters: too short for anything in an address to be too long


class Variable(Enum):
    """What `${…}` may name."""

    LOCAL = "local"
    TAG = "tag"
    DOMAIN = "domain"


Piece = str | Variable | int  # literal text, a variable, the number of a capture


@dataclass(frozen=True, slots=True)
class Template:
    """An address with something to fill in."""

    local: tuple[Piece, ...]
    domain: tuple[Piece, ...]
    via: Hop | None

    @property
    def captures(self) -> frozenset[int]:
        """The numbers of the captures that it needs."""
        return frozenset(piece for piece in (*self.local, *self.domain) if isinstance(piece, int))

    def __str__(self) -> str:
        """Write it as a rule does."""
        return f"{_written(self.local)}@{_written(self.domain)}"


Target = Destination | Template


@dataclass(frozen=True, slots=True)
class Send:
    """Forward to every target, in the order written."""

    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """What templates are filled with. `captures[0]` is `\\1`."""

    local: str
    tag: str
    domain: str
    captures: Sequence[str | None]

    def of(self, piece: Piece) -> str:
        """Give the text of one piece."""
        match piece:
            case str():
                return piece
            case Variable():
                return {Variable.LOCAL: self.local, Variable.TAG: self.tag, Variable.DOMAIN: self.domain}[piece]
            case _:
                return self.captures[piece - 1] or "" if piece <= len(self.captures) else ""


def fill(template: Template, values: Values) -> Destination:
    """Fill a template in; raise `AddressError` if that gives no valid address."""
    local = "".join(values.of(piece) for piece in template.local)
    # A name, never an address literal: `[10.0.0.1]` must not come out of a capture.
    domain = canonical_name("".join(values.of(piece) for piece in template.domain))
    return Destination(parse_mailbox(f"{quote_local(local)}@{domain}"), template.via)


def parse_target(text: str, via: Hop | None) -> Target:
    """Read one target; raise `AddressError`, whose text says what to write instead."""
    if text.startswith("<"):
        raise AddressError("write the address without angle brackets")
    if "@" not in text:
        raise AddressError(
            f"{text!r} has no domain: write {text}@ and a domain ({text}@${{domain}} for the recipient's own)"
        )
    if text.startswith("*@"):
        text = "${local}" + text[1:]
    if text.startswith('"') or not _SUBSTITUTION.search(text):
        return Destination(_fixed(text, via), via)
    local, _, domain = text.rpartition("@")
    return _template(local, domain, via)


def _fixed(text: str, via: Hop | None) -> Address:
    if not text.startswith('"') and "*" in text.partition("@")[0]:
        raise AddressError("a target has no wildcards, but *@domain keeps the local part, and ${local} stands for it")
    simple = _ATOMS.fullmatch(text)
    short = len(text) <= _SHORT
    address = Address(simple[1], _canonical(simple[2])) if simple and short else parse_mailbox(text)
    if via is None and "." not in address.domain and not address.domain.startswith("["):
        raise AddressError(f"{address.domain!r} is not a full domain name")
    return address


@lru_cache(maxsize=4_096)
def _canonical(domain: str) -> str:
    return canonical_name(domain)


@lru_cache(maxsize=4_096)
def _template(local: str, domain: str, via: Hop | None) -> Template:
    template = Template(_pieces(local), _pieces(domain), via)
    variable = [piece for piece in template.domain if not isinstance(piece, str)]
    if variable and template.domain != (Variable.DOMAIN,):
        last = template.domain[-1]
        if not isinstance(last, str) or not _FIXED_END.search(last):
            raise AddressError(
                r"a domain may vary only below two fixed labels, as in \1.example.com: "
                "otherwise anybody could have mail sent anywhere"
            )
    # Placeholders show whether the fixed text around the variables is sound.
    parse_mailbox(f"{_SUBSTITUTION.sub('x', local)}@{_SUBSTITUTION.sub('x', domain)}")
    return template if variable else Template(template.local, (canonical_name(domain),), via)


def _pieces(text: str) -> tuple[Piece, ...]:
    pieces: list[Piece] = []
    position = 0
    for match in _SUBSTITUTION.finditer(text):
        if match.start() > position:
            pieces.append(text[position : match.start()])
        pieces.append(_capture(match[2]) if match[1] is None else _variable(match[1]))
        position = match.end()
    if position < len(text):
        pieces.append(text[position:])
    return tuple(pieces)


def _capture(digit: str) -> int:
    if digit not in set("123456789"):
        raise AddressError(r"a backslash in a target begins a capture: \1 to \9")
    return int(digit)


def _variable(name: str) -> Variable:
    known = [variable.value for variable in Variable]
    if name in known:
        return Variable(name)
    near = get_close_matches(name[:20].lower(), known, 1)
    hint = f"did you mean ${{{near[0]}}}?" if near else "there are ${local}, ${tag} and ${domain}"
    raise AddressError(f"unknown variable ${{{name}}}: {hint}")


def _written(pieces: tuple[Piece, ...]) -> str:
    return "".join(_piece_written(piece) for piece in pieces)


def _piece_written(piece: Piece) -> str:
    match piece:
        case str():
            return piece
        case Variable():
            return f"${{{piece.value}}}"
        case _:
            return f"\\{piece}"
