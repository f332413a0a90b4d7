"""Whether a trusted forwarder before us vouches for a message by ARC (RFC 8617 7.2, RFC 9989 5.4).

The newest sealer must be trusted by name, its chain must be whole and its signature cover From, and what that sealer
found when the message came to it must include a DMARC pass. Texts of strangers stand in what a sealer writes too, in
comments and quoted strings: what is there never counts, and a field that cannot be read to its end vouches for nothing.

`vouched_by` never fails and takes linear time. Left out on purpose: what follows from it.
"""

import re
from collections.abc import Collection

from forwarder.auth.arc.verify import ArcResult, ArcStatus

_PIECE = re.compile(rb'\\.|[()"\\]|[^()"\\]+', re.DOTALL)
_DMARC = re.compile(rb"dmarc\s*(?:/\s*1\s*)?=\s*(\S*)", re.IGNORECASE)  # RFC 8601 2.2: methodspec
_TEXT = b'"'  # stands for a quoted string, so that what is on both sides of it does not grow together


def vouched_by(arc: ArcResult | None, trusted: Collection[str]) -> str:
    """Give the domain of the trusted sealer that vouches for the message, "" without one."""
    if arc is None or arc.status is not ArcStatus.PASS or arc.sealer not in trusted or not arc.from_signed:
        return ""
    clauses = _bare(arc.authentication_results).split(b";")[1:]  # the first is the authserv-id
    found = [match[1].lower() for clause in clauses if (match := _DMARC.match(clause.strip()))]
    return arc.sealer if found and all(result == b"pass" for result in found) else ""


def _bare(field: bytes) -> bytes:
    """Give a field without comments (RFC 5322 3.2.2, also nested) and quoted strings; b"" if one does not end."""
    depth, quoted = 0, False
    kept = []
    for piece in _PIECE.findall(field):
        if piece == b'"' and not depth:
            quoted = not quoted
            kept.append(_TEXT)
        elif quoted:
            continue
        elif piece == b"(":
            depth += 1
            kept.append(b" ")
        elif piece[:1] in (b")", b"\\") and not depth:
            return b""
        elif piece == b")":
            depth -= 1
        elif not depth:
            kept.append(piece)
    return b"" if quoted or depth else b"".join(kept)
