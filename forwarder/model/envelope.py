"""The envelope: who sent it, to whom, and what the sender asked for along with it."""

from dataclasses import dataclass, field
from enum import Enum

from forwarder.model.address import Address


class Body(Enum):
    """BODY= of MAIL (RFC 6152)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


@dataclass(frozen=True, slots=True)
class MailOptions:
    """Parameters of MAIL FROM.

    `size` is 0 when not declared; `ret` is "", "FULL" or "HDRS"; `envid` is xtext as sent.
    """

    size: int = 0
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False  # RFC 6531 3.4
    ret: str = ""  # RFC 3461 4.3
    envid: str = ""  # RFC 3461 4.4


@dataclass(frozen=True, slots=True)
class RcptOptions:
    """Parameters of RCPT TO (RFC 3461 4.1, 4.2). `notify` is empty when not given; `orcpt` is `type;xtext` as sent."""

    notify: frozenset[str] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT."""

    address: Address
    options: RcptOptions = field(default_factory=RcptOptions)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is connected. `address` and `local` are IP addresses as text (IPv4-mapped ones already unmapped)."""

    address: str
    port: int
    local: str = ""


@dataclass(frozen=True, slots=True)
class Tls:
    """A TLS layer in use, as the ssl module names it: "TLSv1.3", "TLS_AES_256_GCM_SHA384"."""

    version: str
    cipher: str
