"""A resolver that stops when a message's time for DNS is used up: no name server shall hold a sender up."""

from typing import Any

from forwarder.ports import Answer, Clock, DnsStatus, Mx, Resolver

_TOO_LATE: Answer[Any] = Answer(DnsStatus.FAILED, reason="DNS has taken too long for this message")


class BudgetedResolver:
    """Asks another resolver for `seconds` from now; after that every answer is FAILED."""

    def __init__(self, resolver: Resolver, clock: Clock, seconds: float) -> None:
        self._resolver = resolver
        self._clock = clock
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin the time anew."""
        self._until = self._clock.monotonic() + self._seconds

    async def mx(self, name: str) -> Answer[Mx]:
        """Give the MX records."""
        return _TOO_LATE if self._is_used_up() else await self._resolver.mx(name)

    async def addresses(self, name: str, *, ipv6: bool) -> Answer[str]:
        """Give the A or AAAA records."""
        return _TOO_LATE if self._is_used_up() else await self._resolver.addresses(name, ipv6=ipv6)

    async def txt(self, name: str) -> Answer[bytes]:
        """Give the TXT records."""
        return _TOO_LATE if self._is_used_up() else await self._resolver.txt(name)

    async def ptr(self, address: str) -> Answer[str]:
        """Give the names of an address."""
        return _TOO_LATE if self._is_used_up() else await self._resolver.ptr(address)

    def _is_used_up(self) -> bool:
        return self._clock.monotonic() >= self._until
