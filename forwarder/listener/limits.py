"""How far a client may go, and who is counted together.

`ListenerLimits` are the numbers; `Admission` counts connections, in all and per client, of one process or in the one
that counts for all; `TurnedAway` says when those that were refused are worth a word.
"""

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address

from forwarder.model.address import client_ip, parse_ip
from forwarder.model.reply import Reply
from forwarder.ports import Doorkeeper

TOO_MANY = Reply(421, "4.7.0", "Too many connections: try again later", close=True)
TOO_MANY_OF_YOURS = Reply(421, "4.7.0", "Too many connections from your network: try again later", close=True)

_QUIET = 60.0  # seconds
_NETWORKS = 1024
_OTHERS = ""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """Times in seconds, sizes in octets.

    `banner_delay`: who talks in this time before the banner is no mail server (RFC 5321 3.1). 10 ms finds those that
    send without listening at all, which is most, since their octets come right behind the handshake; more would hold
    up honest clients that open a connection per message. With 0 only what has already arrived counts.
    `data_rate`: the least that must arrive in each `data_grace` seconds, on average, while a message is sent.
    `overrun`: a message that is too large is read to its end, so that the sender learns why, but at most this many
    times the largest size; then the connection is cut.
    `line_length`: a message with a longer line is refused; 0: none is, for re-folding would break signatures, and big
    receivers take long lines (RFC 5321 4.5.3.1.6 names 998).
    `errors` and `idle_commands` (those that lead nowhere: NOOP, RSET, VRFY, HELP, EHLO) count since the last accepted
    message, `commands` over the session.
    """

    connections: int = 1000
    connections_per_client: int = 20
    banner_delay: float = 0.01
    proxy_timeout: float = 5.0
    command_timeout: float = 300.0  # RFC 5321 4.5.3.2.7
    data_timeout: float = 180.0  # per read, RFC 5321 4.5.3.2.5
    handshake_timeout: float = 30.0
    session_time: float = 7200.0
    data_rate: int = 100  # octets per second
    data_grace: float = 60.0
    overrun: int = 2
    line_length: int = 0
    commands: int = 10_000
    errors: int = 20
    idle_commands: int = 100
    auth_attempts: int = 5
    command_line: int = 2048  # RFC 5321 4.5.3.1.4 asks for 512; RFC 6531, 3461 and 1870 add to it
    auth_line: int = 12_288  # RFC 4954 4


class Admission:
    """Implements `ports.Doorkeeper`. IPv6 clients count per /64, which is what one client is given.

    `limits` may be replaced at any time; who is in stays in.
    """

    def __init__(self, limits: ListenerLimits) -> None:
        self.limits = limits
        self._clients: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """How many are counted."""
        return self._clients.total()

    async def enter(self, client: str) -> Reply | None:
        """Count a connection; or give the reply that refuses it, and do not count it."""
        network = network_of(client)
        if self.connections >= self.limits.connections:
            return TOO_MANY
        if self._clients[network] >= self.limits.connections_per_client:
            return TOO_MANY_OF_YOURS
        self._clients[network] += 1
        return None

    def leave(self, client: str) -> None:
        """Stop counting a connection that was let in."""
        network = network_of(client)
        self._clients[network] -= 1
        if not self._clients[network]:
            del self._clients[network]


class TurnedAway:
    """Counts refused connections, so that a client that tries all day tells the log about it once a minute.

    Clients count together as they do in `Admission`. Of more than 1024 networks in a minute the rest count as one.
    """

    def __init__(self) -> None:
        # When each network was told of, and how many came since. The oldest is first, as telling puts it last.
        self._networks: dict[str, tuple[float, int]] = {}

    def tell(self, address: str, now: float) -> int:
        """Count one; give how many there were since the last time, this one included, or 0 if it is too early to tell.

        `now` is in seconds, by a clock that never goes back.
        """
        network = self._place(network_of(address), now)
        told, count = self._networks.get(network, (now - _QUIET, 0))
        if now - told < _QUIET:
            self._networks[network] = (told, count + 1)
            return 0
        self._networks.pop(network, None)
        self._networks[network] = (now, 0)
        return count + 1

    def _place(self, network: str, now: float) -> str:
        if network in self._networks or len(self._networks) < _NETWORKS:
            return network
        oldest = next(iter(self._networks))
        if now - self._networks[oldest][0] < _QUIET:
            return _OTHERS
        del self._networks[oldest]
        return network


class Door:
    """Where the clients of one listener come in: who counts them, and who was turned away."""

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self.doorkeeper = doorkeeper
        self.turned_away = TurnedAway()


def canonical_address(text: str) -> str:
    """Give an IP address in its usual form, without a zone, an IPv4-mapped one (RFC 4291 2.5.5.2) as IPv4."""
    return str(client_ip(text))


def network_of(address: str) -> str:
    """Give what is counted together: an IPv4 address, or the /64 of an IPv6 one."""
    parsed = parse_ip(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
