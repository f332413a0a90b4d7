"""Which refusals speak of us, and not of the message or its recipient.

A next hop that dislikes our address, our reverse name or the SPF record of our SRS domain answers 5xx to every
message. Passed back, that would tell senders that the owner's mailbox is wrong, and they would believe it; so such a
reply counts as temporary and alerts the operator. Source: the postmaster pages of Google, Microsoft, Yahoo and Apple.

`our_fault(reply)` gives the plain reason, or "" for every other reply. The first matching row decides.
"""

import re
from dataclasses import dataclass

from forwarder.model.reply import Class, Reply

_QUOTED = 2000  # characters of a reply that are looked at


@dataclass(frozen=True, slots=True)
class _Row:
    """`enhanced` matches the whole enhanced code, `text` is searched for without case; "" matches any."""

    enhanced: str
    text: str
    reason: str

    def matches(self, enhanced: str, text: str) -> bool:
        return (not self.enhanced or re.fullmatch(self.enhanced, enhanced) is not None) and (
            re.search(self.text, text, re.IGNORECASE) is not None
        )


_PTR = "our address has no reverse name (PTR) that leads back to it"
_BLOCKED = "our address is on a block list"
_SPF = "the SPF record of our SRS domain does not cover our address"
_UNAUTHENTICATED = "our SPF or DKIM does not pass"
_IPV6 = "our IPv6 address is not accepted"

_ROWS = (
    # RFC 7372 3.3: reverse DNS validation failed. Google's other codes for it name the record.
    _Row(r"5\.7\.25", "", _PTR),
    _Row(r"5\.7\.1", r"\bPTR\b|IPv6 sending guidelines", _PTR),
    _Row(r"5\.7\.2[47]", "", _SPF),
    _Row(r"5\.7\.26", r"hard fail", _SPF),
    _Row(r"5\.7\.(26|30)", r"sender is unauthenticated|pass DKIM authentication", _UNAUTHENTICATED),
    _Row(r"5\.7\.29", "", "the next hop wants TLS"),
    _Row(r"5\.7\.28", "", _BLOCKED),
    _Row(r"5\.7\.1", r"reputation of the sending IP|IP you're using to send|originating from your IP", _BLOCKED),
    # Microsoft
    _Row(r"5\.7\.(511|60[6-9]|6[1-4]\d)", "", _BLOCKED),
    _Row(r"5\.7\.1", r"\(S31[45]0\)|on our block list", _BLOCKED),
    _Row(r"5\.7\.(508|510)", "", _IPV6),
    # Yahoo
    _Row(r"", r"\[(TSS09|TSS11|TSS07|BL2[123])\]", _BLOCKED),
    # Apple and all who ask a DNS list about the client
    _Row(
        r"5\.7\.[01]|",
        r"(client host|your (ip|host)|ip address|\[\d+\.\d+\.\d+\.\d+\]).{0,80}(blocked|listed)",
        _BLOCKED,
    ),
    _Row(
        r"5\.7\.[01]|", r"(blocked|listed).{0,40}\b(spamhaus|sbl|xbl|pbl|zen|barracuda|spamcop|proofpoint)\b", _BLOCKED
    ),
)
# Lists of domains and links speak of the message.
_OF_THE_MESSAGE = re.compile(r"\b(dbl|surbl|uribl|url|link)\b", re.IGNORECASE)


def our_fault(reply: Reply) -> str:
    """Say what is wrong with us where a 5xx reply says so; "" where it speaks of the message, or is no 5xx."""
    text = " ".join(reply.text.split())[:_QUOTED]
    if reply.kind is not Class.PERMANENT or _OF_THE_MESSAGE.search(text.split("http", maxsplit=1)[0]):
        return ""
    return next((row.reason for row in _ROWS if row.matches(reply.enhanced, text)), "")
