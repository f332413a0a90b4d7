"""What serves clients: listener, sessions, courier, resolver. It runs in the one process, or in each worker.

    front = Front(wanted, tls, ports, listening, log)
    await front.serve(sockets)
    ready = front.prepare(wanted, tls)      may fail and changes nothing
    front.adopt(ready)                      cannot fail
    cut_off = await front.drain()           then front.close()

`ports` are those that count and keep for all processes: local ones, or ones that ask the parent; nothing else differs.
Sessions keep the `Gateway` that they began with.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from forwarder.app.assembly import Assembly
from forwarder.app.settings import listener_limits, resolver_of
from forwarder.app.wanted import Unready, Wanted
from forwarder.auth.dmarc.organisation import public_organisation
from forwarder.config import Config
from forwarder.delivery.settings import CourierSettings
from forwarder.listener.protocol import ListenerOptions, TlsSource
from forwarder.listener.server import Listener
from forwarder.model.envelope import Peer
from forwarder.ops.clock import SystemClock
from forwarder.ops.wire import Ports
from forwarder.ports import EventLog
from forwarder.session.custody import finish
from forwarder.session.gateway import Gateway
from forwarder.session.transaction import Session

_COURIER_GRACE = 5.0  # seconds for attempts whose sender has been answered


@dataclass(frozen=True, slots=True)
class Ready:
    """All of a state, built."""

    gateway: Gateway
    options: ListenerOptions
    courier: CourierSettings


class Front:
    """Serves clients. `listening` are the addresses and ports of the sockets."""

    def __init__(
        self, wanted: Wanted, tls: TlsSource, ports: Ports, listening: Sequence[tuple[str, int]], log: EventLog
    ) -> None:
        config = wanted.config
        self._ports = ports
        self._log = log
        self._clock = SystemClock()
        self._resolver = resolver_of(config, self._clock)
        self._assembly = Assembly(self._clock, self._resolver, listening, log)
        self._courier = self._assembly.courier(config, ports.ledger, ports.pacer)
        self._ready = self.prepare(wanted, tls)
        self._listener = Listener(self._converse, self._ready.options, ports.doorkeeper)

    @property
    def gateway(self) -> Gateway:
        """What sessions begin with now."""
        return self._ready.gateway

    @property
    def options(self) -> ListenerOptions:
        """What connections begin with now."""
        return self._ready.options

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._listener.connections

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Begin to accept on bound sockets, which are the front's from now on."""
        await asyncio.to_thread(public_organisation, "example.org")  # reads its list: no client shall wait for that
        await self._listener.serve(sockets)

    def prepare(self, wanted: Wanted, tls: TlsSource) -> Ready:
        """Build everything that another state needs; raise `Unready`. May run in a thread."""
        config = wanted.config
        gateway = self._assembly.gateway(wanted, self._courier, self._ports.keeper, self._ports.limiter)
        return Ready(gateway, self._options(config, tls), self._assembly.courier_settings(config))

    def adopt(self, ready: Ready) -> None:
        """Put a state in force, for clients that connect from now on."""
        self._courier.reconfigure(ready.courier)
        self._listener.reconfigure(ready.options)
        self._ready = ready

    async def drain(self, timeout: float) -> int:
        """Stop accepting and let transactions end; give the number of clients cut off after `timeout` seconds."""
        return await self._listener.drain(timeout)

    async def close(self) -> None:
        """End what is under way to next hops, after a while, and everything else."""
        await finish()
        await self._courier.close(_COURIER_GRACE)
        await self._resolver.close()

    def _converse(self, peer: Peer) -> Session:
        return Session(self._ready.gateway, peer)

    def _options(self, config: Config, tls: TlsSource) -> ListenerOptions:
        spill = config.state_dir / "incoming"
        try:
            spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unready([f"{spill}: {error.strerror}"]) from None
        return ListenerOptions(
            spill=spill,
            limits=listener_limits(config),
            tls=tls,
            proxy_protocol=config.listen.proxy_protocol,
            report=self._report,
            handshake_failed=lambda client, reason: self._log.event("reject", client=client, stage="tls", text=reason),
            refused=lambda client, count: self._log.event(
                "reject", client=client, stage="connect", code=421, count=count
            ),
        )

    def _report(self, error: BaseException, client: str) -> None:
        """Take note of what went wrong in a connection and must not have."""
        self._log.event("alert", client=client, component="session", error=type(error).__name__, text=str(error))
