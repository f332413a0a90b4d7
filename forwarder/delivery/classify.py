"""What a next hop's refusal means: the first row of `delivery.replies` that matches, else the code's first digit.

A hop that dislikes our address, our reverse name or the SPF record of our SRS domain answers 5xx to every message.
Passed back, that would tell senders that the owner's mailbox is wrong, and they would believe it. Others say of a
mailbox, a sender or the whole provider that it wants to be left alone. The rows tell these apart.

`classify` never fails and looks at no more than `LOOKED_AT` characters. What is no refusal (2xx, 3xx) matches no row.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.delivery.replies import ROWS, Row
from forwarder.model.reply import Class, Reply
from forwarder.model.ruling import PERMANENT, TEMPORARY, Ruling

LOOKED_AT = 2000  # characters of a reply's text

# The domain of a provider's mail hosts.
_PROVIDERS = {
    "google.com": "google",
    "googlemail.com": "google",
    "smtp.goog": "google",
    "protection.outlook.com": "microsoft",
    "mx.microsoft": "microsoft",
    "yahoodns.net": "yahoo",
    "mail.icloud.com": "apple",
    "protonmail.ch": "proton",
    "messagingengine.com": "fastmail",
}
# RFC 2034 4: at the start of each line. Left in the text where its class differs from the code's ("421 5.7.32").
_ENHANCED = re.compile(r"^([45]\.[0-9]{1,3}\.[0-9]{1,3})(?= |$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A row made ready."""

    provider: str
    code: re.Pattern[str]
    enhanced: re.Pattern[str]
    text: re.Pattern[str]
    ruling: Ruling


def _ready(rows: tuple[Row, ...]) -> tuple[_Pattern, ...]:
    return tuple(
        _Pattern(
            row.provider,
            re.compile(row.code, re.ASCII),
            re.compile(row.enhanced or ".*", re.ASCII),
            re.compile(row.text, re.IGNORECASE),
            row.ruling,
        )
        for row in rows
    )


_TABLE = _ready(ROWS)


def classify(reply: Reply, relay: str = "") -> Ruling:
    """Say what a refusal by `relay` (`host[ip]:port`; "" where nobody knows) means."""
    provider = provider_of(relay.partition("[")[0])
    raw = reply.text[:LOOKED_AT]
    leading = _ENHANCED.match(raw)
    code, enhanced = str(reply.code), reply.enhanced or (leading[1] if leading else "")
    text = " ".join(_ENHANCED.sub("", raw).split())
    for row in _TABLE:
        if (
            row.provider in ("", provider)
            and row.code.fullmatch(code)
            and row.enhanced.fullmatch(enhanced)
            and row.text.search(text)
        ):
            return row.ruling
    return PERMANENT if reply.kind is Class.PERMANENT else TEMPORARY


def provider_of(host: str) -> str:
    """Name whoever runs a mail host: a word for those that rows know, otherwise the host's last two labels.

    These need not be a domain that anybody can register ("co.uk"): hosts below them are then paced together. An IP
    address (an explicit next hop) is its own provider; "" gives "".
    """
    name = host.strip("[]").rstrip(".").lower()
    if _is_address(name):
        return name
    labels = name.split(".")
    suffixes = (".".join(labels[start:]) for start in range(max(0, len(labels) - 3), len(labels)))
    known = (_PROVIDERS[suffix] for suffix in suffixes if suffix in _PROVIDERS)
    return next(known, ".".join(labels[-2:]))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
