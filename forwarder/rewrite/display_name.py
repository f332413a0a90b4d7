"""Display names of mail addresses: what a reader would see, and how that is written again (RFC 5322 3.4, RFC 2047).

`decoded` takes a name as it stands in a header and gives the text; `phrase` writes a text as words of 7 bits that can
be put side by side and folded between. Both are total and linear. What could deceive is taken out: control characters
and those that turn the direction of writing; an "@", which makes a name look like an address that is not there. A name
is at most `MAX_NAME` characters.

Charsets are those of mail. Python knows others, which are slow or no charsets at all; they are left as they stand.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from unicodedata import category

MAX_NAME = 100  # characters; mail programs show some 30
MAX_WORD = 60  # of an encoded word; RFC 2047 2 allows 75, and the name of a field has to go in front
_LOOKED_AT = 1000  # characters of a text of which MAX_NAME are to be left

# RFC 2047 2. Blanks are not allowed within, but there.
_ENCODED = re.compile(r"=\?([!-)+->@-~]{1,40})\?([bq])\?([^?]*)\?=", re.IGNORECASE)
_CHARSET = re.compile(
    r"us-ascii|utf-8|(?:iso-8859|windows|cp|ibm|koi8|euc|iso-2022)-?[0-9a-z]{1,5}(?:-[0-9a-z]{1,2})?"
    r"|gb2312|gbk|gb18030|big5|shift_jis|macintosh|tis-620",
    re.IGNORECASE,
)
_AT = re.compile("[@\uff20\ufe6b]")
_JOINERS = "\u200c\u200d"  # letters of some scripts need them
_Q_LITERAL = re.compile(r"[A-Za-z0-9!*+/-]")  # RFC 2047 5, 3


def decoded(text: str) -> str:
    """Give what a reader sees of a name whose quotes are off already: on one line, with nothing that deceives."""
    return clean(decode_words(text))


def decode_words(text: str) -> str:
    """Decode encoded words, also where quotes forbid them (RFC 2047 5): readers do so too."""
    parts: list[str] = []
    pending, charset, end = b"", "", 0
    for match in _ENCODED.finditer(text):
        octets = _octets(match[2], match[3])
        if octets is None or not _CHARSET.fullmatch(name := match[1].partition("*")[0].lower()):  # RFC 2231 5
            continue
        between = text[end : match.start()]
        if name != charset or between.strip() or not parts:  # what is split between words is joined: many do that
            parts.append(_text(pending, charset))
            pending, charset = b"", name
        if between.strip() or end == 0:  # RFC 2047 6.2: blanks between encoded words go
            parts.append(between)
        pending += octets
        end = match.end()
    return "".join((*parts, _text(pending, charset), text[end:]))


def _octets(encoding: str, text: str) -> bytes | None:
    if encoding in "qQ":
        # RFC 2047 4.2
        return binascii.a2b_qp(text.replace("_", " ").encode("ascii", "replace"), header=False)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None


def _text(octets: bytes, charset: str) -> str:
    try:
        return octets.decode(charset, "replace") if octets else ""
    except (LookupError, UnicodeError):
        return octets.decode("ascii", "replace")


def clean(text: str) -> str:
    """Give a text as a name on one line, without what deceives."""
    kept = "".join(each if _is_visible(each) else " " for each in text[:_LOOKED_AT])
    line = " ".join(_AT.sub(" at ", kept).split()).strip("\"' ")
    return line if len(line) <= MAX_NAME else line[: MAX_NAME - 1].rstrip() + "…"


def _is_visible(character: str) -> bool:
    return character.isprintable() or category(character) == "Zs" or character in _JOINERS


def phrase(name: str) -> list[str]:
    """Write a name that `clean` gave as words, to be separated by blanks: one quoted string, or encoded words."""
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    plain = name.isascii() and name.isprintable() and "=?" not in name  # readers decode what is in quotes as well
    return [quoted] if plain and len(quoted) <= MAX_WORD else encoded_words(name)


def encoded_words(text: str) -> list[str]:
    """Write a text as encoded words."""
    return [f"=?utf-8?q?{piece}?=" for piece in _pieces(text)]


def _pieces(text: str) -> Iterator[str]:
    room = MAX_WORD - len("=?utf-8?q??=")
    piece = ""
    for character in text:
        octets = _quoted_printable(character)
        if len(piece) + len(octets) > room:
            yield piece
            piece = ""
        piece += octets
    if piece:
        yield piece


def _quoted_printable(character: str) -> str:
    if character == " ":
        return "_"
    if _Q_LITERAL.fullmatch(character):
        return character
    return "".join(f"={octet:02X}" for octet in character.encode("utf-8", "replace"))
