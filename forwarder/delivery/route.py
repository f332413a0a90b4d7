"""Where a destination's mail is offered: from a domain to addresses, in the order of RFC 5321 5.1. Pure but for
awaits on the resolver.

An explicit hop of the rule comes before one of `delivery.routes`, which comes before the MX records. `Router.targets`
looks addresses up one preference at a time, as they are needed, and raises `Unroutable` when there is nobody to ask:
REFUSED where that is certain (no such domain, null MX, ourselves), DEFERRED where DNS could not be asked, and where an
explicit hop has no address, since then the mistake is the operator's and not the sender's.

Left out on purpose: TLS policies by destination, and what is known of a host from earlier attempts.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby

from forwarder.delivery.settings import CourierSettings, IpPreference
from forwarder.model.destination import Destination, Hop
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.ports import Answer, DnsStatus, Mx, Randomness, Resolver

_FAMILIES = {  # whether AAAA is asked for, in the order of preference
    IpPreference.PREFER_IPV4: (False, True),
    IpPreference.PREFER_IPV6: (True, False),
    IpPreference.IPV4: (False,),
    IpPreference.IPV6: (True,),
}


@dataclass(frozen=True, slots=True)
class Way:
    """What decides the route: an explicit hop, or else a domain. Equal ways can share a transaction."""

    domain: str = ""
    hop: Hop | None = None

    def __str__(self) -> str:
        """Name it for logs."""
        return str(self.hop) if self.hop else self.domain


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to; `host` is the name that led there (or the address itself)."""

    host: str
    address: str
    port: int

    def __str__(self) -> str:
        """Write it as logs do: host[address]:port."""
        return f"{self.host}[{self.address}]:{self.port}"


class Unroutable(Exception):  # noqa: N818 - an expected outcome, not an error
    """Nobody can be asked; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome.reply))
        self.outcome = outcome


class Router:
    """Finds targets by the settings."""

    def __init__(self, settings: CourierSettings, resolver: Resolver, randomness: Randomness) -> None:
        self._settings = settings
        self._resolver = resolver
        self._randomness = randomness

    def way(self, destination: Destination) -> Way:
        """Say what decides the route of a destination."""
        domain = destination.address.domain
        hop = destination.via or self._settings.routes.get(domain) or _literal(domain)
        return Way(hop=hop) if hop else Way(domain)

    async def targets(self, way: Way) -> AsyncGenerator[Target, None]:
        """Give the addresses to try, best first; raise `Unroutable` when there is none."""
        most = self._settings.limits.addresses
        if way.hop:
            for target in (await self._of_hop(way.hop))[:most]:
                yield target
            return
        # Closed here: left to the garbage collector, it would cost a task of its own each time.
        async with aclosing(self._of_domain(way.domain)) as targets:
            async for target in targets:
                yield target
                most -= 1
                if not most:
                    return

    async def _of_hop(self, hop: Hop) -> Sequence[Target]:
        found = await self._resolve(hop.host, hop.port or self._settings.port)
        if any(self._is_own(target) for target in found.targets):
            raise _loop(f"the next hop {hop} is this gateway")
        if not found.targets:
            raise _deferred("4.4.4", f"the next hop {hop} has no usable address{found.because}")
        return found.targets

    async def _of_domain(self, domain: str) -> AsyncGenerator[Target, None]:
        hosts = _before_us(await self._hosts(domain), self._settings.ehlo_name)
        if not hosts:
            raise _loop(f"the mail of {domain} comes to this gateway")
        failed, seen = "", False
        for _, group in groupby(hosts[: self._settings.limits.hosts], key=lambda mx: mx.preference):
            found = [await self._resolve(mx.host, self._settings.port) for mx in group]
            targets = [target for one in found for target in one.targets]
            failed = next((one.because for one in found if one.because), failed)
            if any(self._is_own(target) for target in targets):  # RFC 5321 5.1: it and all that are not better go
                if seen:
                    return
                raise _loop(f"the mail of {domain} comes to this gateway")
            for target in targets:
                seen = True
                yield target
        if not seen:
            raise _no_address(domain, failed)

    async def _hosts(self, domain: str) -> Sequence[Mx]:
        """Give the mail hosts of a domain, best first, in random order within one preference."""
        answer = await self._resolver.mx(domain)
        if answer.status is DnsStatus.FOUND:
            named = [mx for mx in answer.records if mx.host]
            if not named:  # RFC 7505 3
                raise _refused(556, "5.1.10", f"{domain} takes no mail")
            shuffled = sorted(named, key=lambda _: self._randomness.random())
            return sorted(shuffled, key=lambda mx: mx.preference)
        if answer.status is DnsStatus.NODATA:
            return [Mx(0, domain)]  # RFC 5321 5.1: the implicit MX, only when there is no MX record at all
        if answer.status is DnsStatus.NXDOMAIN:
            raise _refused(550, "5.1.2", f"the domain {domain} does not exist")
        raise _deferred("4.4.3", f"the mail hosts of {domain} could not be looked up: {answer.reason}")

    async def _resolve(self, host: str, port: int) -> "_Found":
        if _is_address(host):
            return _Found((Target(host, host, port),))
        answers = [await self._resolver.addresses(host, ipv6=ipv6) for ipv6 in _FAMILIES[self._settings.ip]]
        targets = tuple(Target(host, address, port) for answer in answers for address in answer.records)
        return _Found(targets, _failure(host, answers))

    def _is_own(self, target: Target) -> bool:
        return (target.address, target.port) in self._settings.own_addresses


@dataclass(frozen=True, slots=True)
class _Found:
    """The addresses of a host; `because` is not empty when DNS failed to say."""

    targets: tuple[Target, ...]
    because: str = ""


def _failure(host: str, answers: Sequence[Answer[str]]) -> str:
    return next((f": {host}: {answer.reason}" for answer in answers if answer.status is DnsStatus.FAILED), "")


def _before_us(hosts: Sequence[Mx], name: str) -> Sequence[Mx]:
    """Drop ourselves and every host that is not better than we are (RFC 5321 5.1)."""
    ours = [mx.preference for mx in hosts if mx.host == name]
    return [mx for mx in hosts if mx.preference < min(ours)] if ours else hosts


def _literal(domain: str) -> Hop | None:
    """Give the hop that an address literal names (RFC 5321 4.1.3)."""
    return Hop(domain[1:-1].removeprefix("IPv6:")) if domain.startswith("[") else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refused(code: int, enhanced: str, text: str) -> Unroutable:
    return Unroutable(Outcome(Verdict.REFUSED, Reply(code, enhanced, text)))


def _deferred(enhanced: str, text: str) -> Unroutable:
    return Unroutable(Outcome(Verdict.DEFERRED, Reply(451, enhanced, text)))


def _loop(text: str) -> Unroutable:
    return _refused(554, "5.4.6", text)


def _no_address(domain: str, failed: str) -> Unroutable:
    if failed:
        return _deferred("4.4.3", f"the mail hosts of {domain} could not be looked up{failed}")
    return _refused(550, "5.4.4", f"no mail host of {domain} has an address")
