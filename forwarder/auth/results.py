"""One Authentication-Results field that says what was checked (RFC 8601), written through authres.

authres writes values with an @ and comments as they are, so nothing reaches it that has not been reduced to characters
which can neither end a clause nor a line. `authentication_results` never fails and its lines are bounded.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from authres.core import AuthenticationResult, AuthenticationResultsHeader
from authres.core import AuthenticationResultProperty as Property

from forwarder.auth.arc.verify import ArcResult
from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.verify import DmarcResult
from forwarder.auth.iprev import IprevResult, IprevStatus
from forwarder.auth.spf.verify import SpfCheck, SpfStatus
from forwarder.model.address import Address

_SAFE_VALUE = re.compile(r"[^A-Za-z0-9!#$%&'*+/=?^_`{|}~.:-]")
_SAFE_COMMENT = re.compile(r"[^A-Za-z0-9 .,:;=+_'/<>@\[\]-]")
_SAFE_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9._-]+")
_NOTHING = AuthenticationResultsHeader.NONE_RESULT  # RFC 8601 2.2
_MAX_VALUE = 255
_MAX_COMMENT = 120


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
    def undecided(self) -> bool:
        """Whether DNS left open if the message is proven."""
        by_spf = self.spf is not None and self.spf.mail_from.status is SpfStatus.TEMPERROR
        return by_spf or any(result.status is DkimStatus.TEMPERROR for result in self.dkim)


def authentication_results(authserv_id: str, found: Authentication, disposition: str) -> bytes:
    """Give the whole field with its CRLF, one clause a line; `disposition` is what DMARC led to, such as "none"."""
    clauses = [*_iprev(found), *_spf(found), *_dkim(found), *_arc(found), *_dmarc(found, disposition)]
    lines = [f"{AuthenticationResultsHeader.HEADER_FIELD_NAME}: {authserv_id}", *map(str, clauses or [_NOTHING])]
    return ";\r\n\t".join(lines).encode("ascii") + b"\r\n"


def _clause(method: str, result: str, reason: str, properties: Sequence[tuple[str, str, str]]) -> object:
    named = [Property(kind, name, _value(value)) for kind, name, value in properties if value]
    comment = _SAFE_COMMENT.sub("?", reason)[:_MAX_COMMENT] or None
    return AuthenticationResult(method, result=result, result_comment=comment, properties=named)


def _value(text: str) -> str:
    if _SAFE_MAILBOX.fullmatch(text):
        return text[: 2 * _MAX_VALUE]
    return _SAFE_VALUE.sub("?", text)[:_MAX_VALUE]


def _iprev(found: Authentication) -> list[object]:
    if found.iprev is None or found.iprev.status is IprevStatus.NONE:
        return []
    comment = found.iprev.name or found.iprev.reason
    return [_clause("iprev", found.iprev.status.value, comment, [("policy", "iprev", found.client)])]


def _spf(found: Authentication) -> list[object]:
    """The identity that counts: MAIL FROM, or HELO with the null sender (RFC 7208 2.4)."""
    if found.spf is None:
        return []
    if found.sender is None:
        by = found.spf.helo
        return [_clause("spf", by.status.value, by.reason or by.mechanism, [("smtp", "helo", found.helo)])]
    by = found.spf.mail_from
    mailbox = str(found.sender)
    shown = mailbox if _SAFE_MAILBOX.fullmatch(mailbox) else found.sender.domain
    return [_clause("spf", by.status.value, by.reason or by.mechanism, [("smtp", "mailfrom", shown)])]


def _dkim(found: Authentication) -> list[object]:
    if not found.dkim_checked:
        return []
    if not found.dkim:
        return [_clause("dkim", "none", "", [])]
    return [_signature(result) for result in found.dkim]


def _signature(result: DkimResult) -> object:
    notes = [result.reason, "only a part of the body is signed" if result.body_extended else ""]
    properties = [
        ("header", "d", result.domain),
        ("header", "i", result.identity),
        ("header", "s", result.selector),
        ("header", "a", result.algorithm),
        ("header", "b", result.signature_start),
    ]
    return _clause("dkim", result.status.value, ", ".join(filter(None, notes)), properties)


def _arc(found: Authentication) -> list[object]:
    if found.arc is None:
        return []
    oldest = str(found.arc.oldest_pass) if found.arc.instances else ""
    return [_clause("arc", found.arc.status.value, found.arc.reason, [("header", "oldest-pass", oldest)])]


def _dmarc(found: Authentication, disposition: str) -> list[object]:
    if found.dmarc is None:
        return []
    policy = found.dmarc.policy.value if found.dmarc.published else ""
    comment = f"p={policy} dis={disposition}" if policy else found.dmarc.reason
    return [_clause("dmarc", found.dmarc.status.value, comment, [("header", "from", found.dmarc.from_domain)])]
