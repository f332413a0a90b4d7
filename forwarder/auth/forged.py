"""Find Authentication-Results fields that claim to be ours in a message that comes from outside (RFC 8601 5).

Whoever reads the message behind us trusts the fields that carry our authserv-id, so none may come in. The check is on
the identifier alone, read as leniently as any reader might: without case, through comments, folding and quotes, with a
trailing dot or a version, as A-labels or U-labels. Fields of other servers are left as they are.

`forged_fields` never fails and takes linear time. Left out on purpose: what the fields say.
"""

import re

from forwarder.model.address import AddressError, canonical_name
from forwarder.model.headers import Header

_NAME = b"authentication-results"
_WORD = re.compile(r'[^\s;/()"]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"?', re.DOTALL)


def forged_fields(header: Header, authserv_id: str) -> tuple[tuple[int, int], ...]:
    """Give the octet ranges (start, end) of the fields to remove, in order; `authserv_id` is canonical."""
    ranges = []
    position = 0
    for field in header.fields:
        end = position + len(field.raw)
        if field.name == _NAME and identifier(field.value) == authserv_id:
            ranges.append((position, end))
        position = end
    return tuple(ranges)


def identifier(value: bytes) -> str:
    """Give the canonical authserv-id of a field's value, "" where there is none (RFC 8601 2.2)."""
    text = value.decode("utf-8", "replace")
    start = _past_comments(text)
    match = _QUOTED.match(text, start) or _WORD.match(text, start)
    if match is None:
        return ""
    word = re.sub(r"\\(.)", r"\1", match[1]) if match.re is _QUOTED else match[0]
    try:
        return canonical_name(word.strip().rstrip("."))
    except AddressError:
        return ""


def _past_comments(text: str) -> int:
    """Give where white space and comments (RFC 5322 3.2.2), which may be nested, end."""
    position = depth = 0
    while position < len(text):
        character = text[position]
        if character == "\\" and depth:
            position += 1
        elif character == "(":
            depth += 1
        elif character == ")" and depth:
            depth -= 1
        elif not depth and not character.isspace():
            return position
        position += 1
    return position
