"""What a next hop offers in its reply to EHLO (RFC 5321 4.1.1.1), as one frozen value.

Parsing never fails: what is not understood is not offered. The first line of the reply is the server's name and
greeting, every further one a keyword with its parameters. Left out on purpose: extensions that we never use.
"""

from dataclasses import dataclass
from enum import Enum

_MAX_DIGITS = 20  # RFC 1870 3: the number of SIZE


class Extension(Enum):
    """A service extension by its EHLO keyword."""

    SIZE = "SIZE"  # RFC 1870
    EIGHT_BIT_MIME = "8BITMIME"  # RFC 6152
    SMTPUTF8 = "SMTPUTF8"  # RFC 6531
    PIPELINING = "PIPELINING"  # RFC 2920
    STARTTLS = "STARTTLS"  # RFC 3207
    DSN = "DSN"  # RFC 3461
    ENHANCED_STATUS_CODES = "ENHANCEDSTATUSCODES"  # RFC 2034
    CHUNKING = "CHUNKING"  # RFC 3030
    AUTH = "AUTH"  # RFC 4954
    REQUIRETLS = "REQUIRETLS"  # RFC 8689


_KNOWN = {extension.value: extension for extension in Extension}


@dataclass(frozen=True, slots=True)
class Offer:
    """The extensions offered. `size_limit` is in octets, 0 when no limit was named; `auth` the AUTH mechanisms."""

    extensions: frozenset[Extension] = frozenset()
    size_limit: int = 0
    auth: frozenset[str] = frozenset()

    def __contains__(self, extension: Extension) -> bool:
        return extension in self.extensions


NOTHING = Offer()  # what a server offers that knows HELO alone


def parse_offer(text: str) -> Offer:
    """Read the text of a 250 reply to EHLO, its lines separated by "\\n"."""
    found: dict[Extension, list[str]] = {}
    for line in text.split("\n")[1:]:
        keyword, *parameters = line.upper().split() or [""]
        if extension := _KNOWN.get(keyword):
            found.setdefault(extension, parameters)
    return Offer(frozenset(found), _size(found.get(Extension.SIZE, [])), frozenset(found.get(Extension.AUTH, [])))


def _size(parameters: list[str]) -> int:
    number = parameters[0] if parameters else ""
    return int(number) if number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS else 0
