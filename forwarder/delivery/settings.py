"""What the operator may choose about handing mail on, as frozen values. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from forwarder.model.destination import Hop
from forwarder.smtp.client import Stage, TlsUse


class IpPreference(Enum):
    """Which kind of address is tried, and in which order for one host."""

    PREFER_IPV4 = "prefer-ipv4"
    PREFER_IPV6 = "prefer-ipv6"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait (RFC 5321 4.5.3.2; the connection is not named there, and is short so that the next MX can still
    be asked while our client waits)."""

    connect: float = 10.0
    greeting: float = 300.0
    command: float = 300.0  # EHLO, STARTTLS, MAIL, RCPT, RSET
    handshake: float = 30.0
    data: float = 120.0
    content: float = 180.0  # for each piece
    dot: float = 600.0
    quit: float = 5.0  # courtesy: nothing depends on it
    attempt: float = 3600.0  # for one message to one next hop in all, however slowly it goes on

    def of(self, stage: Stage) -> float:
        """Give the time-out for what is waited for."""
        return _SPECIAL[stage](self) if stage in _SPECIAL else self.command


_SPECIAL = {
    Stage.GREETING: lambda t: t.greeting,
    Stage.HANDSHAKE: lambda t: t.handshake,
    Stage.DATA: lambda t: t.data,
    Stage.CONTENT: lambda t: t.content,
    Stage.DOT: lambda t: t.dot,
    Stage.LONE_DOT: lambda t: t.dot,
    Stage.QUIT: lambda t: t.quit,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on connections; times in seconds."""

    per_destination: int = 5  # connections at once to one domain or explicit hop: what Gmail is known to bear
    connections: int = 200  # at once in all; as many again may be idle
    messages: int = 50  # over one connection
    idle: float = 10.0  # an unused connection is kept
    age: float = 300.0  # a connection is used
    hosts: int = 8  # of one domain that are looked up
    addresses: int = 8  # that are tried for one message
    shun: float = 120.0  # an address that could not be connected to is asked last
    recipients: int = 100  # in one transaction (RFC 5321 4.5.3.1.8)


@dataclass(frozen=True, slots=True)
class CourierSettings:
    """How the courier hands mail on.

    `routes` gives explicit next hops by destination domain (canonical names). `own_addresses` are the (address, port)
    pairs that we listen on ourselves, wild cards spelt out: mail must not be sent there. Of `source_addresses` the
    first of the right family is used; with none of that family the system chooses.
    """

    ehlo_name: str
    port: int = 25
    tls: TlsUse = TlsUse.OPPORTUNISTIC
    source_addresses: tuple[str, ...] = ()
    ip: IpPreference = IpPreference.PREFER_IPV4
    routes: Mapping[str, Hop] = field(default_factory=dict)
    own_addresses: frozenset[tuple[str, int]] = frozenset()
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
