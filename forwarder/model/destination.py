"""Where a message goes next: a mailbox, and possibly an explicit next hop for it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.model.address import Address, AddressError, canonical_name

_MAX_PORT = 65_535
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Hop:
    """An explicit next hop. `host` is a canonical name or an IP address as text; `port` None means `delivery.port`."""

    host: str
    port: int | None = None

    def __str__(self) -> str:
        """Write it as the rules and the configuration do."""
        return f"[{self.host}]" + (f":{self.port}" if self.port is not None else "")


@dataclass(frozen=True, slots=True)
class Destination:
    """A mailbox to forward to; `via` overrides the MX lookup of its domain."""

    address: Address
    via: Hop | None = None


def parse_hop(text: str) -> Hop:
    """Read `[192.0.2.7]:25`, `[2001:db8::1]`, `[mx.example]:25`, `mx.example:2525`; raise `AddressError`."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise AddressError("a next hop is written [address]:port or name:port")
        port = rest[1:] if rest else None
    else:
        host, colon, tail = text.partition(":")
        port = tail if colon else None
    if port is not None and not (_PORT.fullmatch(port) and 0 < int(port) <= _MAX_PORT):
        raise AddressError(f"the port of a next hop is a number from 1 to {_MAX_PORT}")
    return Hop(_host(host), int(port) if port is not None else None)


def _host(text: str) -> str:
    if "%" in text:
        raise AddressError("a next hop has no zone")  # ipaddress takes any character behind the "%"
    try:
        return str(ip_address(text.removeprefix("IPv6:")))
    except ValueError:
        return canonical_name(text)
