"""The kinds of value that name a host, a network address or a mailbox.

Names come out as `model.address.canonical_name` gives them, IP addresses as `ipaddress` writes them. Nothing is looked
up. Scoped addresses (`fe80::1%eth0`) are refused: what they mean depends on the machine.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, unquote

from forwarder.config.kinds import Flaw, Kind, Toml, Unfit
from forwarder.config.problems import joined
from forwarder.model.address import Address, AddressError, canonical_name, parse_mailbox
from forwarder.model.destination import Hop, parse_hop

_MAX_PORT = 65_535
_DNS_PORT = 53
_SUBMISSION_PORT = 587  # RFC 6409 3.1
_ENDPOINT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<v4>[0-9.]{7,15}))(?::(?P<port>[0-9]{1,5}))?")
_AFTER_COLON = re.compile(r":(?!//|[0-9]{1,5}/?$).*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address (canonical text) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as the configuration does: `127.0.0.1:25`, `[::1]:25`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Smarthost:
    """A relay that takes all mail, with the name to log in by ("" to send without a login)."""

    hop: Hop
    user: str = ""

    def __str__(self) -> str:
        """Write it as the configuration does, without any secret."""
        return f"smtp://{quote(self.user, safe='') + '@' if self.user else ''}{self.hop}"


@dataclass(frozen=True, slots=True)
class Domain(Kind):
    """A domain name with a dot in it; becomes lower-case A-labels.

    `host` leaves "_" out, as EHLO must (RFC 5321 2.3.5). With `or_empty` it may be "", which then means what that says.
    """

    example: str
    host: bool = False
    or_empty: str = ""

    def read(self, value: object) -> str:
        """Give the canonical name."""
        if value == "" and self.or_empty:
            return ""
        try:
            name = canonical_name(value) if isinstance(value, str) else ""
        except AddressError:
            name = ""
        if "." not in name or name.rpartition(".")[2].isdigit() or (self.host and "_" in name):
            empty = f' or "" ({self.or_empty})' if self.or_empty else ""
            what = "a full host name" if self.host else "a domain name"
            raise Unfit(Flaw(value, f'expected {what} such as "{self.example}"{empty}'))
        return name


@dataclass(frozen=True, slots=True)
class Mailbox(Kind):
    """A mail address."""

    def read(self, value: object) -> Address:
        """Give the canonical address."""
        try:
            return parse_mailbox(value if isinstance(value, str) else "")
        except AddressError as error:
            reason = f" ({error})" if isinstance(value, str) and value else ""
            raise Unfit(Flaw(value, f'expected a mail address such as "me@example.com"{reason}')) from None


def _endpoint(text: str, default_port: int | None = None) -> Endpoint | None:
    """Read an IP address and a port: `192.0.2.1:53`, `[::1]:53`; the bare address where there is a default port."""
    if default_port is not None and (address := _ip(text)) is not None:
        return Endpoint(str(address), default_port)
    match = _ENDPOINT.fullmatch(text)
    address = _ip(match["v6"] or match["v4"]) if match else None
    if match is None or address is None or (address.version == 6) != bool(match["v6"]):
        return None
    port = default_port if match["port"] is None else int(match["port"])
    return Endpoint(str(address), port) if port is not None and port <= _MAX_PORT else None


def _ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if "%" not in text else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Listen(Kind):
    """An address to listen at. Port 0 lets the system choose one. With `optional`, "" is None: not at all."""

    optional: bool = False

    def read(self, value: object) -> Endpoint | None:
        """Give the endpoint."""
        if value == "" and self.optional:
            return None
        endpoint = _endpoint(value) if isinstance(value, str) else None
        if endpoint is None:
            off = ' or "" (off)' if self.optional else ""
            raise Unfit(Flaw(value, f'expected an IP address and a port such as "127.0.0.1:2525" or "[::]:25"{off}'))
        return endpoint

    def write(self, value: object) -> Toml:
        """Write the endpoint, "" for None."""
        return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Nameserver(Kind):
    """A DNS server; the port is 53 unless given."""

    def read(self, value: object) -> Endpoint:
        """Give the endpoint."""
        endpoint = _endpoint(value, _DNS_PORT) if isinstance(value, str) else None
        if endpoint is None or endpoint.port == 0:
            raise Unfit(Flaw(value, 'expected an IP address such as "192.0.2.1", "127.0.0.1:5353" or "[::1]:53"'))
        return endpoint


@dataclass(frozen=True, slots=True)
class SourceAddress(Kind):
    """An IP address of this machine to send from."""

    def read(self, value: object) -> str:
        """Give the address as canonical text."""
        address = _ip(value) if isinstance(value, str) else None
        if address is None or address.is_unspecified or address.is_multicast:
            raise Unfit(Flaw(value, 'expected an IP address of this machine such as "192.0.2.1" or "2001:db8::1"'))
        return str(address)


@dataclass(frozen=True, slots=True)
class Routes(Kind):
    """A table from destination domain to next hop."""

    def read(self, value: object) -> dict[str, Hop]:
        """Give hops by canonical domain."""
        if not isinstance(value, Mapping):
            raise Unfit(Flaw(value, 'expected a table such as "gmail.com" = "[192.0.2.9]:25"'))
        routes: dict[str, Hop] = {}
        flaws: list[Flaw] = []
        for name, text in value.items():
            try:
                domain, hop = self._route(name, text)
            except Unfit as unfit:
                flaws += unfit.flaws
                continue
            if domain in routes:
                flaws.append(Flaw(text, f"expected one route for {domain}: it is listed twice", joined(".", name)))
            routes[domain] = hop
        if flaws:
            raise Unfit(*flaws)
        return routes

    def write(self, value: object) -> Toml:
        """Write the table, domains in order."""
        assert isinstance(value, Mapping)
        return {domain: str(hop) for domain, hop in sorted(value.items())}

    def _route(self, name: str, text: object) -> tuple[str, Hop]:
        try:
            domain = canonical_name(name)
        except AddressError as error:
            raise Unfit(Flaw(text, f"expected a domain name as the key ({error})", joined(".", name))) from None
        try:
            hop = parse_hop(text if isinstance(text, str) else "")
        except AddressError as error:
            example = '"[192.0.2.9]:25" or "mx.example.org:25"'
            raise Unfit(Flaw(text, f"expected a next hop such as {example} ({error})", joined(".", name))) from None
        return domain, hop


@dataclass(frozen=True, slots=True)
class Relay(Kind):
    """The URL of a smarthost, or "" for none. A password in it is refused: this file is no place for secrets."""

    def read(self, value: object) -> Smarthost | None:
        """Give the smarthost."""
        if value == "":
            return None
        scheme, slashes, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
        login, at, host = rest.rpartition("@")
        if ":" in login:
            raise Unfit(
                Flaw(value, "expected no password here: put it into the file that delivery.smarthost_password names")
            )
        user = unquote(login)
        try:
            hop = parse_hop(host.removesuffix("/"))
        except AddressError:
            hop = None
        if hop is None or (scheme, slashes) != ("smtp", "://") or not _fits_login(user, at):
            raise Unfit(Flaw(value, 'expected a URL such as "smtp://user@mail.example.org:587", or "" for none'))
        return Smarthost(hop if hop.port is not None else Hop(hop.host, _SUBMISSION_PORT), user)

    def write(self, value: object) -> Toml:
        """Write the URL, "" for None."""
        return "" if value is None else str(value)

    def shown(self, value: object) -> object:
        """Hide whatever may be a password: all after a colon that no port follows."""
        return _AFTER_COLON.sub(":***", value) if isinstance(value, str) else value


def _fits_login(user: str, at: str) -> bool:
    return bool(user) == bool(at) and user.isprintable() and len(user) <= 320
