"""One Authentication-Results field that says what was checked (RFC 8601), written through authres.

authres writes values with an @ and comments as they are, and reads a quoted value only where it ends a clause. So
nothing reaches it that has not been reduced to characters which can end neither a clause, a comment nor a line, and
what may need quotes comes last. Texts of strangers hold no `method=` either: some readers only search for that.

`authentication_results` never fails. Its lines have at most `MAX_LINE` octets, the field at most `_SIGNATURES` clauses
for DKIM. A value that is too long is marked as cut, so that no other name is left over.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from authres.core import AuthenticationResult, AuthenticationResultsHeader
from authres.core import AuthenticationResultProperty as Property

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.organisation import is_within
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.iprev import IprevResult, IprevStatus
from forwarder.auth.spf.verify import SpfCheck, SpfStatus
from forwarder.model.address import Address

MAX_LINE = 400
_WIDTH = 78  # RFC 5322 2.1.1, where a value is not longer
_MAX_VALUE = 255
_MAX_COMMENT = 120
_SIGNATURES = 10
_KEPT = 2048  # pieces that were written, of some 100 octets: the next message of a sender has the same ones
_CUT = "..."

_NO_TOKEN = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`{|}~-]")  # RFC 2045 5.1
_NO_VALUE = re.compile(r"[^A-Za-z0-9!#$%&'*+./:=^_`{|}~\[\]-]")  # what a quoted string may hold here
_NO_COMMENT = re.compile(r"[^A-Za-z0-9 .,:=+_'/<>@%\[\]{}-]")
_CLAUSE = re.compile(r"((?:spf|dkim|dmarc|arc|iprev|auth)[ ]*)=", re.IGNORECASE)
_ATOM = r"[A-Za-z0-9!#$%&'*+/?^_`{|}~-]+"  # RFC 5322 3.2.3, but for "=": OpenDMARC lets such a field fall
_LABEL = r"[A-Za-z0-9_-]+"
_MAILBOX = re.compile(rf"(?:{_ATOM}(?:\.{_ATOM})*)?@{_LABEL}(?:\.{_LABEL})*")  # RFC 8601 2.2: [ local-part ] "@" domain
_NOTHING = AuthenticationResultsHeader.NONE_RESULT  # RFC 8601 2.2


@dataclass(frozen=True, slots=True)
class Authentication:
    """What was found of one message; a check that is switched off is None (DKIM: empty). `sender` is MAIL FROM."""

    client: str
    helo: str
    sender: Address | None
    iprev: IprevResult | None = None
    spf: SpfCheck | None = None
    dkim: tuple[DkimResult, ...] = ()
    dkim_checked: bool = False
    arc: ArcResult | None = None
    dmarc: DmarcResult | None = None

    @property
    def proven(self) -> bool:
        """Whether anything at all vouches for the message: SPF or a DKIM signature."""
        return bool(self.spf and self.spf.authenticated_domain) or any(r.status is DkimStatus.PASS for r in self.dkim)

    @property
    def authenticated(self) -> bool:
        """Whether a DSN to MAIL FROM would reach who really sent the message (section 3 of the design).

        SPF passes for MAIL FROM's domain, or DMARC passes and MAIL FROM is of the author's organisation.
        """
        if self.sender is None:
            return False
        if self.spf is not None and self.spf.mail_from.status is SpfStatus.PASS:
            return True
        author = self.dmarc
        if author is None or author.status is not DmarcStatus.PASS or not author.organisation:
            return False
        return is_within(self.sender.domain, author.organisation)

    @property
    def undecided(self) -> bool:
        """Whether DNS left open if the message is proven."""
        by_spf = self.spf is not None and self.spf.mail_from.status is SpfStatus.TEMPERROR
        return by_spf or any(result.status is DkimStatus.TEMPERROR for result in self.dkim)


def authentication_results(authserv_id: str, found: Authentication, disposition: str) -> bytes:
    """Give the whole field with its CRLF, each clause on a new line; `disposition` is what DMARC led to ("none")."""
    clauses = [*_iprev(found), *_spf(found), *_dkim(found), *_arc(found), *_dmarc(found, disposition)]
    lines = [f"{AuthenticationResultsHeader.HEADER_FIELD_NAME}: {authserv_id}", *(clauses or [str(_NOTHING)])]
    return ";\r\n\t".join(lines).encode("ascii") + b"\r\n"


def _clause(method: str, result: str, comment: str, *properties: tuple[str, str]) -> str:
    """Write one clause: the properties as ("type.name", a value that was made safe); the empty ones are left out."""
    words = [_head(method, result, _comment(comment))]
    words += [_property(name, value) for name, value in properties if value]
    return _folded(words)


@lru_cache(_KEPT)
def _head(method: str, result: str, comment: str) -> str:
    return str(AuthenticationResult(method, result=result, result_comment=comment or None))


@lru_cache(_KEPT)
def _property(name: str, value: str) -> str:
    kind, _, rest = name.partition(".")
    return str(Property(kind, rest, value))


def _folded(words: Iterable[str]) -> str:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= _WIDTH:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\r\n\t ".join(lines)


def _token(text: str) -> str:
    """Give a value that needs no quotes."""
    return _cut(_NO_TOKEN.sub("_", text[: _MAX_VALUE + 1]))


def _value(text: str) -> str:
    """Give a value that authres may put in quotes: it must be the last of its clause."""
    return _cut(_without_clause(_NO_VALUE.sub("_", text[: _MAX_VALUE + 1])))


def _mailbox(text: str) -> str:
    """Give a mailbox, or "" if it cannot stand here as it is."""
    return text if len(text) <= _MAX_VALUE and _MAILBOX.fullmatch(text) else ""


def _comment(text: str) -> str:
    plain = text[: _MAX_COMMENT + 1].replace(";", ",")
    return _cut(_without_clause(_NO_COMMENT.sub("?", plain)), _MAX_COMMENT).strip()


def _without_clause(text: str) -> str:
    return _CLAUSE.sub(r"\1_", text) if "=" in text else text


def _cut(text: str, length: int = _MAX_VALUE) -> str:
    return text if len(text) <= length else text[: length - len(_CUT)] + _CUT


def _iprev(found: Authentication) -> list[str]:
    if found.iprev is None or found.iprev.status is IprevStatus.NONE:
        return []
    comment = found.iprev.name or found.iprev.reason
    return [_clause("iprev", found.iprev.status.value, comment, ("policy.iprev", _value(found.client)))]


def _spf(found: Authentication) -> list[str]:
    """The identity that counts: MAIL FROM, or HELO with the null sender (RFC 7208 2.4)."""
    if found.spf is None:
        return []
    if found.sender is None:
        by, identity = found.spf.helo, ("smtp.helo", _value(found.helo))
    else:
        by, shown = found.spf.mail_from, _mailbox(str(found.sender)) or _value(found.sender.domain)
        identity = ("smtp.mailfrom", shown)
    return [_clause("spf", by.status.value, by.reason or by.mechanism, identity)]


def _dkim(found: Authentication) -> list[str]:
    if not found.dkim_checked:
        return []
    if not found.dkim:
        return [_clause("dkim", "none", "")]
    return [_signature(result) for result in found.dkim[:_SIGNATURES]]


def _signature(result: DkimResult) -> str:
    notes = (
        result.reason,
        "the end of the body is not signed" if result.body_extended else "",
        "the key is marked as a test" if result.testing else "",
    )
    below = result.identity.rpartition("@")[2]
    return _clause(
        "dkim",
        result.status.value,
        ", ".join(filter(None, notes)),
        ("header.d", _token(result.domain)),
        ("header.i", _mailbox(result.identity) or _mailbox(f"@{below}")),
        ("header.s", _token(result.selector)),
        ("header.a", _token(result.algorithm)),
        ("header.b", _value(result.signature_start)),  # RFC 6008 4
    )


def _arc(found: Authentication) -> list[str]:
    """The chain, with the lowest instance that is known to hold and who sent us the message (RFC 8617 10.2)."""
    if found.arc is None:
        return []
    if found.arc.status is not ArcStatus.PASS:
        return [_clause("arc", found.arc.status.value, found.arc.reason)]
    comment = f"{found.arc.instances} {'set' if found.arc.instances == 1 else 'sets'}, sealed by {found.arc.sealer}"
    oldest, remote = str(found.arc.oldest_pass), _value(found.client)
    return [_clause("arc", "pass", comment, ("header.oldest-pass", oldest), ("smtp.remote-ip", remote))]


def _dmarc(found: Authentication, disposition: str) -> list[str]:
    result = found.dmarc
    if result is None:
        return []
    policy = result.policy.value if result.published else ""
    comment = f"p={policy} dis={disposition}" if policy else result.reason
    author = ("header.from", _token(result.from_domain))
    return [_clause("dmarc", result.status.value, comment, author, ("policy.dmarc", policy))]
