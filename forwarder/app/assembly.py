"""What is put together in the same way where clients are served and where the queue is delivered."""

from collections.abc import Sequence
from random import Random, SystemRandom

from forwarder.app.settings import courier_settings, session_settings
from forwarder.app.wanted import Wanted
from forwarder.config import Config
from forwarder.delivery.courier import CutThroughCourier, Surroundings
from forwarder.delivery.settings import CourierSettings
from forwarder.net.dialer import TcpDialer
from forwarder.ops.addresses import own_addresses
from forwarder.ops.clock import SystemClock
from forwarder.ports import Courier, EventLog, Keeper, Ledger, Limiter, Pacer, Resolver
from forwarder.session.gateway import Gateway


class Assembly:
    """Makes couriers and gateways. `listening` are the addresses and ports of our sockets: no mail goes there."""

    def __init__(
        self, clock: SystemClock, resolver: Resolver, listening: Sequence[tuple[str, int]], log: EventLog
    ) -> None:
        self._clock = clock
        self._resolver = resolver
        self._listening = listening
        self._log = log

    def courier_settings(self, config: Config) -> CourierSettings:
        """Give the settings of couriers."""
        return courier_settings(config, own_addresses(self._listening))

    def courier(self, config: Config, ledger: Ledger, pacer: Pacer) -> CutThroughCourier:
        """Make a courier."""
        surroundings = Surroundings(
            resolver=self._resolver,
            dialer=TcpDialer(),
            clock=self._clock,
            randomness=Random(),  # noqa: S311 - spreads load; the system's is dear between threads
            ledger=ledger,
            pacer=pacer,
            log=self._log,
        )
        return CutThroughCourier(self.courier_settings(config), surroundings)

    def gateway(self, wanted: Wanted, courier: Courier, keeper: Keeper, limiter: Limiter) -> Gateway:
        """Make what sessions work with, and what finds out where an address leads."""
        return Gateway(
            settings=session_settings(wanted.config),
            rules=wanted.rules,
            srs=wanted.srs,
            courier=courier,
            keeper=keeper,
            resolver=self._resolver,
            limiter=limiter,
            clock=self._clock,
            randomness=SystemRandom(),
            log=self._log,
            signing=wanted.signing,
        )
