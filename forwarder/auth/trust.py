"""Whether a trusted forwarder before us vouches for a message by ARC (RFC 8617 7.2, RFC 9989 5.4).

The newest sealer must be trusted by name, its chain must be whole and its signature cover From, and what that sealer
found when the message came to it must include a DMARC pass. `vouched_by` never fails. Left out on purpose: what follows
from it.
"""

import re
from collections.abc import Collection

from forwarder.auth.arc.verify import ArcResult, ArcStatus

# What could hold the words of a stranger: quoted strings, and comments without comments in them.
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_COMMENT = re.compile(rb"\((?:[^()\\]|\\.)*+\)", re.DOTALL)
_DMARC_PASS = re.compile(rb"\s*dmarc\s*=\s*pass\b(?!-)", re.IGNORECASE)
_NESTED = 8


def vouched_by(arc: ArcResult | None, trusted: Collection[str]) -> str:
    """Give the domain of the trusted sealer that vouches for the message, "" without one."""
    if arc is None or arc.status is not ArcStatus.PASS or arc.sealer not in trusted or not arc.from_signed:
        return ""
    text = _QUOTED.sub(b"", arc.authentication_results)
    for _ in range(_NESTED):
        text = _COMMENT.sub(b" ", text)
    clauses = text.split(b";")[1:] if b"(" not in text else []
    return arc.sealer if any(_DMARC_PASS.match(clause) for clause in clauses) else ""
