"""Composition root: from the configuration to running objects, and what happens when files or signals change.

`read` gives everything that the files ask for, or raises `Unready` with every problem found. `Service` runs it:
sockets, sessions, courier, control socket; SIGTERM drains, SIGHUP reloads. A reload builds all of the new state first
and then swaps one reference, so that it happens whole or not at all; sessions keep the `Gateway` that they began with.
"""

import asyncio
import math
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from forwarder.auth.dmarc.organisation import public_organisation
from forwarder.config import Config, ConfigError, DeliveryMode, Unauthenticated, load
from forwarder.delivery.courier import CutThroughCourier
from forwarder.delivery.settings import CourierSettings, IpPreference, Limits, Timeouts
from forwarder.listener.limits import ListenerLimits
from forwarder.listener.protocol import ListenerOptions
from forwarder.listener.server import Listener
from forwarder.listener.sockets import address_of, open_listening
from forwarder.model.envelope import Peer
from forwarder.net.dialer import TcpDialer
from forwarder.net.dns_exchange import NameServer
from forwarder.net.resolver import DnsResolver, system_nameservers
from forwarder.ops import rulefiles, systemd
from forwarder.ops.addresses import own_addresses
from forwarder.ops.certificates import CertificateError, ServerCertificate
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import ControlServer
from forwarder.ops.secrets import SecretError, srs_secrets
from forwarder.policy.content import ContentLimits
from forwarder.policy.dmarc import Enforcement
from forwarder.policy.limiter import LocalLimiter, SlidingLimiter
from forwarder.ports import EventLog
from forwarder.rewrite.srs import Srs
from forwarder.rules import Change, RulesError, RuleSet, compare, parse
from forwarder.session.examination import Checks
from forwarder.session.gateway import Gateway, Settings
from forwarder.session.transaction import Session
from forwarder.smtp.client import TlsUse

_DAY = 86_400
_DRAIN_MARGIN = 10.0  # seconds beyond the cut-through deadline that transactions get when we stop
_COURIER_GRACE = 5.0  # seconds for attempts whose sender has been answered
# Keys that sockets, processes or files were made from: a reload that changes one of them is refused.
_FIXED = ("listen", "state_dir", "run_dir", "workers", "dns", "log")


class Unready(Exception):  # noqa: N818 - what is said is that it is not ready
    """What the files ask for cannot be run; `problems` has a line for each reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files ask for, read and checked."""

    config: Config
    rules: RuleSet
    srs: Srs


def read(path: Path) -> Wanted:
    """Read the configuration and what it names; raise `Unready` with the problems of all of them."""
    try:
        config = load(path)
    except ConfigError as error:
        raise Unready(error.lines()) from None
    problems = [f"{path}: {text}" for text in unsupported(config)]
    rules = srs = None
    try:
        rules = read_rules(config)
    except Unready as error:
        problems += error.problems
    try:
        max_age = math.ceil(config.srs.max_age / _DAY)
        srs = Srs(config.srs.domain, srs_secrets(config.srs.secrets), max_age)
    except SecretError as error:
        problems.append(str(error))
    if rules is None or srs is None or problems:
        raise Unready(problems)
    return Wanted(config, rules, srs)


def read_rules(config: Config) -> RuleSet:
    """Read the rules that the configuration names; raise `Unready`."""
    try:
        return parse(rulefiles.read_rules(config.rules), config.postmaster)
    except rulefiles.RuleFilesError as error:
        raise Unready(error.problems) from None
    except RulesError as error:
        raise Unready([str(problem) for problem in error.problems]) from None


def unsupported(config: Config) -> list[str]:
    """Say which keys ask for what this version cannot do, where doing something else instead would harm."""
    if config.delivery.smarthost is not None:
        return ["delivery.smarthost: not supported yet: remove it, mail goes to the MX of its domain"]
    return []


def limitations(config: Config) -> list[str]:
    """Say which keys ask for what this version does not do yet, so that nobody relies on it."""
    if config.delivery.mode is DeliveryMode.QUEUE:
        return ['delivery.mode = "queue": there is no queue yet: mail is handed on before it is acknowledged']
    return []


class Service:
    """The running gateway. `run` returns when it has been told to stop and has drained."""

    def __init__(self, path: Path, wanted: Wanted, log: EventLog) -> None:
        self._path = path
        self._wanted = wanted
        self._log = log
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._limiter = LocalLimiter(SlidingLimiter(self._clock.monotonic))
        config = wanted.config
        nameservers = tuple(NameServer(one.host, one.port) for one in config.dns.nameservers)
        self._resolver = DnsResolver(nameservers or system_nameservers(), self._clock, timeout=config.dns.timeout)
        self._certificate = _certificate(config, log)
        self._courier = CutThroughCourier(
            courier_settings(config, frozenset()),
            resolver=self._resolver,
            dialer=TcpDialer(),
            clock=self._clock,
            randomness=SystemRandom(),
            log=log,
        )
        self._listening: list[tuple[str, int]] = []
        self._listener: Listener
        self._gateway = self._assemble(wanted)

    async def run(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets until SIGTERM or SIGINT."""
        config = self._wanted.config
        self._listening = [one.getsockname()[:2] for one in sockets]
        self._courier.reconfigure(self._courier_settings(config))
        await asyncio.to_thread(public_organisation, "example.org")  # reads its list: no client shall wait for that
        self._listener = listener = Listener(self._converse, self._options(config))
        control = ControlServer(config.run_dir / "control.sock", {"rules.reload": self.reload_rules})
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        reloads: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(signal.SIGHUP, lambda: _keep(reloads, loop.create_task(self._hang_up())))
        await control.start()
        await listener.serve(sockets)
        places = ", ".join(address_of(one) for one in sockets)
        systemd.notify(f"READY=1\nSTATUS=Listening on {places}")
        self._log.event("started", listen=places, rules=self._wanted.rules.total)
        watchdog = loop.create_task(systemd.watch())
        await self._stopping.wait()
        systemd.notify("STOPPING=1")
        self._log.event("stopping", connections=listener.connections)
        cut_off = await listener.drain(config.delivery.cutthrough_deadline + _DRAIN_MARGIN)
        await control.close()
        watchdog.cancel()
        await self._courier.close(_COURIER_GRACE)
        await self._resolver.close()
        self._log.event("stopped", cut_off=cut_off)

    async def reload_rules(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer `forwarder rules reload`: swap the rules, or say why the old ones stay."""
        async with self._reloading:
            begun = self._clock.monotonic()
            wanted = self._wanted
            try:
                rules = await asyncio.to_thread(read_rules, wanted.config)
                change = await self._changed(rules, force=bool(request.get("force")))
            except Unready as error:
                return self._kept(error.problems)
            self._swap(Wanted(wanted.config, rules, wanted.srs))
            counts = {"added": change.added, "removed": change.removed, "changed": change.changed}
            milliseconds = round(1000 * (self._clock.monotonic() - begun), 1)
            self._log.event("reload", what="rules", outcome="done", rules=rules.total, **counts)
            return {"ok": True, "rules": rules.total, "milliseconds": milliseconds, **counts}

    async def _changed(self, rules: RuleSet, *, force: bool = False) -> Change:
        """Compare with the rules in force; raise `Unready` where a file was cut off rather than edited."""
        change = await asyncio.to_thread(compare, self._wanted.rules, rules)
        if change.suspicious and not force:
            left = f"only {change.total} of {change.before} rules would be left"
            text = f"{left}: if that is meant, `forwarder rules reload --force`"
            raise Unready([f"{self._wanted.config.rules}: {text}"])
        return change

    def _kept(self, problems: Sequence[str]) -> Mapping[str, object]:
        for problem in problems:
            self._log.event("reload", outcome="refused", text=problem)
        return {"ok": False, "problems": list(problems)}

    async def _hang_up(self) -> None:
        """Reload everything on SIGHUP, as `systemctl reload` asks."""
        async with self._reloading:
            systemd.notify_reloading()
            try:
                wanted = await asyncio.to_thread(read, self._path)
                self._check_fixed(wanted.config)
                await self._changed(wanted.rules)
                certificate = await asyncio.to_thread(_certificate, wanted.config, self._log)
            except Unready as error:
                self._kept(error.problems)
            except CertificateError as error:
                self._kept([str(error)])
            else:
                self._certificate = certificate
                self._courier.reconfigure(self._courier_settings(wanted.config))
                self._listener.reconfigure(self._options(wanted.config))
                self._swap(wanted)
                self._log.event("reload", what="everything", outcome="done", rules=wanted.rules.total)
            finally:
                systemd.notify("READY=1")

    def _check_fixed(self, config: Config) -> None:
        changed = [key for key in _FIXED if getattr(config, key) != getattr(self._wanted.config, key)]
        if changed:
            raise Unready([f"{self._path}: {key}: changed: restart the gateway to apply it" for key in changed])

    def _swap(self, wanted: Wanted) -> None:
        self._gateway = self._assemble(wanted)
        self._wanted = wanted

    def _assemble(self, wanted: Wanted) -> Gateway:
        config = wanted.config
        settings = Settings(
            hostname=config.hostname,
            postmaster=config.postmaster,
            message_size=config.limits.message_size,
            recipients=config.limits.recipients,
            cutthrough_deadline=config.delivery.cutthrough_deadline,
            content=ContentLimits(config.limits.header_size, config.limits.hops),
            checks=checks_of(config),
        )
        return Gateway(
            settings=settings,
            rules=wanted.rules,
            srs=wanted.srs,
            courier=self._courier,
            resolver=self._resolver,
            limiter=self._limiter,
            clock=self._clock,
            randomness=SystemRandom(),
            log=self._log,
        )

    def _converse(self, peer: Peer) -> Session:
        return Session(self._gateway, peer)

    def _courier_settings(self, config: Config) -> CourierSettings:
        return courier_settings(config, own_addresses(self._listening))

    def _options(self, config: Config) -> ListenerOptions:
        limits = config.limits
        spill = config.state_dir / "incoming"
        spill.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ListenerOptions(
            spill=spill,
            limits=ListenerLimits(
                connections=limits.connections,
                connections_per_client=limits.connections_per_client,
                banner_delay=limits.greeting_delay,
                command_timeout=limits.command_timeout,
                data_timeout=limits.data_timeout,
                session_time=limits.session_timeout,
                data_rate=limits.data_rate_minimum,
                line_length=limits.line_length,
                errors=limits.errors,
                idle_commands=limits.commands_without_progress,
            ),
            tls=self._certificate.current,
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


def open_sockets(config: Config) -> list[socket.socket]:
    """Give the sockets that systemd handed over, or those that the configuration names; raise `BindError`."""
    return systemd.inherited_sockets() or [open_listening(str(endpoint)) for endpoint in config.listen.smtp]


def courier_settings(config: Config, own: frozenset[tuple[str, int]]) -> CourierSettings:
    """Say what the configuration means for handing mail on; `own` are the addresses and ports that lead to us."""
    delivery = config.delivery
    return CourierSettings(
        ehlo_name=config.hostname,
        port=delivery.port,
        tls=TlsUse(delivery.tls.value),
        source_addresses=delivery.source_addresses,
        ip=IpPreference(delivery.ip.value),
        routes=delivery.routes,
        own_addresses=own,
        remember=delivery.expire,
        timeouts=Timeouts(
            connect=delivery.connect_timeout,
            greeting=delivery.greeting_timeout,
            command=delivery.command_timeout,
            data=delivery.data_timeout,
            content=delivery.block_timeout,
            dot=delivery.dot_timeout,
        ),
        limits=Limits(
            per_destination=delivery.connections_per_destination,
            messages=delivery.messages_per_connection,
            idle=delivery.idle_timeout,
        ),
    )


def checks_of(config: Config) -> Checks:
    """Say what the section `authentication` asks for."""
    authentication = config.authentication
    return Checks(
        spf=authentication.spf,
        dkim=authentication.dkim,
        arc=authentication.arc,
        dmarc=Enforcement(authentication.dmarc.value),
        trusted_sealers=frozenset(authentication.trusted_arc_sealers),
        proof_required=authentication.unauthenticated is Unauthenticated.REJECT,
    )


def _certificate(config: Config, log: EventLog) -> ServerCertificate:
    return ServerCertificate(
        config.hostname,
        config.state_dir,
        config.tls.certificate,
        config.tls.key,
        report=lambda text: log.event("alert", component="tls", text=text),
    )


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    """Hold a task until it is done: the loop itself only refers to it weakly."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
