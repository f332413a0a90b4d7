"""What a gateway wrote into a message: the fields that it put in front, and its one Authentication-Results.

The field is read by authres. It drops comments, so these are taken from the text; ours have no others within them.
"""

import re
from dataclasses import dataclass, field
from itertools import takewhile

import authres

from forwarder.model.headers import split_header

ON_TOP = (  # what a gateway puts above its Received, in its order
    b"dkim-signature",
    b"arc-seal",
    b"arc-message-signature",
    b"arc-authentication-results",
    b"x-forwarded-to",
    b"x-forwarded-for",
    b"delivered-to",
    b"authentication-results",
)
_PIECE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\([^()]*\)|[^;"()])+')  # between semicolons
_COMMENT = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class Clause:
    """One method's result. `properties` are by name with their type, such as `header.d`."""

    method: str
    result: str
    comment: str
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Findings:
    """The field as the next hop reads it."""

    authserv_id: str
    clauses: tuple[Clause, ...]

    def all(self, method: str) -> list[Clause]:
        """Give the clauses of a method."""
        return [clause for clause in self.clauses if clause.method == method]

    def one(self, method: str) -> Clause:
        """Give the only clause of a method."""
        (clause,) = self.all(method)
        return clause

    def result(self, method: str) -> str:
        """Give the result of the only clause of a method."""
        return self.one(method).result


def findings(octets: bytes) -> Findings:
    """Read our field: of those above the topmost Received, all of which must be ours, in their order."""
    top = list(takewhile(lambda field: field.name != b"received", split_header(octets).fields))
    names = [field.name for field in top]
    assert sorted(names, key=ON_TOP.index) == names, names  # RFC 8601 4: trace fields stay in order
    (results,) = (field for field in top if field.name == b"authentication-results")
    return parse(results.raw.decode("ascii"))


def parse(text: str) -> Findings:
    """Read a whole field."""
    unfolded = text.removesuffix("\r\n").replace("\r\n", "")
    assert "\r" not in unfolded and "\n" not in unfolded, text
    first, *pieces = _PIECE.findall(unfolded)
    parsed = authres.parse(unfolded)
    assert len(parsed.results) == len(pieces), (first, pieces)
    clauses = []
    for piece, read in zip(pieces, parsed.results, strict=True):
        comment = _COMMENT.search(piece)
        properties = {f"{each.type}.{each.name}": each.value for each in read.properties}
        clauses.append(Clause(read.method, read.result, comment[1] if comment else "", properties))
    return Findings(parsed.authserv_id, tuple(clauses))
