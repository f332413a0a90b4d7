"""Find Authentication-Results fields that claim to be ours in a message that comes from outside (RFC 8601 5).

Whoever reads the message behind us trusts the fields that carry our authserv-id, so none may come in. The check is on
the identifier alone, read as leniently as any reader might: without case, comments, white space, folding, quotes and
backslashes (OpenDMARC drops all of these), with a trailing dot or a version, as A-labels or U-labels, and behind a
line that ends the header section for strict readers. Fields of other servers are left as they are.

`forged_fields` never fails and takes linear time; an identifier that does not end in the first 4 KiB is taken for ours.
Left out on purpose: what the fields say.
"""

import re

from forwarder.model.address import AddressError, canonical_name
from forwarder.model.headers import Header

_NAME = b"authentication-results"
_LOOKED_AT = 4096
_PIECE = re.compile(r'\\.|[()";]|[^\\()";]+', re.DOTALL)
_IGNORED = re.compile(r'[\s"\\]')
_VERSION = re.compile(r"/?[0-9]*\Z")


def forged_fields(header: Header, authserv_id: str) -> tuple[tuple[int, int], ...]:
    """Give the octet ranges (start, end) of the fields to remove, in order; `authserv_id` is canonical."""
    ranges = []
    position = 0
    for field in header.fields:
        end = position + len(field.raw)
        if field.name == _NAME and claims(field.value, authserv_id):
            ranges.append((position, end))
        position = end
    for start, field in header.beyond:
        if field.name == _NAME and claims(field.value, authserv_id):
            ranges.append((start, start + len(field.raw)))
    return tuple(ranges)


def claims(value: bytes, authserv_id: str) -> bool:
    """Say whether some reader could take a field's value for one of that server (RFC 8601 2.2: authserv-id)."""
    spelt = _identifier(value[:_LOOKED_AT].decode("utf-8", "replace"))
    if spelt is None:
        return len(value) > _LOOKED_AT
    words = re.split(r"[ \t\r\n]+", spelt.strip())
    whole = _IGNORED.sub("", spelt)
    candidates = {whole, _VERSION.sub("", whole), *words[:1], *(_VERSION.sub("", word) for word in words[:1])}
    return any(_canonical(candidate) == authserv_id for candidate in candidates)


def _identifier(text: str) -> str | None:
    """Give what stands before the first semicolon outside comments and quotes, without comments; None if none ends it
    and it breaks off in a comment or quotes."""
    depth, quoted = 0, False
    kept = []
    for piece in _PIECE.findall(text):
        if piece == '"' and not depth:
            quoted = not quoted
        elif piece == "(" and not quoted:
            depth += 1
            kept.append(" ")
        elif piece == ")" and depth:
            depth -= 1
        elif piece == ";" and not depth and not quoted:
            break
        elif not depth:
            kept.append(piece.removeprefix("\\"))
    else:
        if depth or quoted:
            return None
    return "".join(kept)


def _canonical(word: str) -> str:
    try:
        return canonical_name(_IGNORED.sub("", word).rstrip("."))
    except AddressError:
        return ""
