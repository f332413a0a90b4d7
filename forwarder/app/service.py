"""The running gateway: sockets, control socket, signals, reload, and what systemd is told.

`Service` runs what `wanted.read` gave; SIGTERM drains, SIGHUP reloads. It owns what there is once for all processes:
the certificate's files, what is counted and kept (`Custody`), and the crew that serves clients. A reload builds all of
the new state first and then swaps it, so that it happens whole or not at all, in every process.
"""

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from forwarder.app.crew import Crew, Shared, State, crew_of
from forwarder.app.custody import Custody
from forwarder.app.settings import listener_limits, worker_count
from forwarder.app.wanted import Unready, Wanted, read, with_other_keys, with_other_rules
from forwarder.config import Config
from forwarder.listener.limits import Admission
from forwarder.listener.sockets import address_of, open_listening
from forwarder.ops import systemd
from forwarder.ops.certificates import CertificateError, ServerCertificate
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import ControlServer
from forwarder.ops.desk import Store
from forwarder.ports import EventLog
from forwarder.rules import Change, RuleSet, compare

_DRAIN_MARGIN = 10.0  # seconds beyond the cut-through deadline that transactions get when we stop
_PATIENCE = 5.0  # seconds that an address may be taken: a predecessor that was killed may not be gone whole
_DELIVERING = 10.0  # seconds that attempts from the spool get when we stop
_LOOK_EVERY = 3.0  # seconds between two looks at the certificate's files, on behalf of workers
_LOOK_AGAIN = 60.0  # seconds, after workers could not take a new one
# Keys that sockets, processes or files were made from: a reload that changes one of them is refused.
_FIXED = ("listen", "state_dir", "run_dir", "workers", "dns", "log")


class Service:
    """The running gateway. `run` returns when it has been told to stop and has drained."""

    def __init__(self, path: Path, wanted: Wanted, log: EventLog) -> None:
        self._path = path
        self._wanted = wanted
        self._log = log
        self._clock = SystemClock()
        self._stopping = asyncio.Event()
        self._changing = asyncio.Lock()
        self._certificate = _certificate(wanted.config, log)
        self._admission = Admission(listener_limits(wanted.config))
        self._crew: Crew
        self._custody: Custody

    async def run(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets until SIGTERM or SIGINT; raise `Unready`."""
        listening = [one.getsockname()[:2] for one in sockets]
        self._custody = custody = Custody(self._wanted, self._admission, listening, self._log)
        await custody.open()
        try:
            await self._serve(sockets)
        finally:
            await custody.close()

    async def _serve(self, sockets: Sequence[socket.socket]) -> None:
        config, custody = self._wanted.config, self._custody
        shared = Shared(custody.ports, Store(custody.spool.files.adopt, custody.spool.halt))
        self._crew = crew = crew_of(self._wanted, sockets, shared, self._log)
        custody.on_watch(crew.announce)
        handlers = {"rules.reload": self.reload_rules, "keys.reload": self.reload_keys, **custody.handlers}
        control = ControlServer(config.run_dir / "control.sock", handlers)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        reloads: set[asyncio.Task[None]] = set()
        loop.add_signal_handler(signal.SIGHUP, lambda: _keep(reloads, loop.create_task(self._hang_up())))
        await control.start()
        places = ", ".join(address_of(one) for one in sockets)
        try:
            await crew.start(State(self._wanted, self._certificate))
        except Unready:
            await control.close()
            raise
        custody.start()
        self._say_ready(places)
        watches = [loop.create_task(systemd.watch())]
        if worker_count(config) > 1:
            watches.append(loop.create_task(self._watch_certificate()))
        await self._stopping.wait()
        systemd.notify("STOPPING=1")
        self._log.event("stopping", connections=crew.connections)
        for watch in watches[1:]:
            watch.cancel()
        cut_off = await crew.drain(config.delivery.cutthrough_deadline + _DRAIN_MARGIN)
        await custody.drain(_DELIVERING)  # after the crew: what its last attempts came to is to be recorded
        await control.close()
        watches[0].cancel()
        self._log.event("stopped", cut_off=cut_off)

    def _say_ready(self, places: str) -> None:
        count = worker_count(self._wanted.config)
        with_ = f" with {count} workers" if count > 1 else ""
        systemd.notify(f"READY=1\nSTATUS=Listening on {places}{with_}")
        workers = count if count > 1 else None
        self._note_keys()
        self._log.event("started", listen=places, rules=self._wanted.rules.total, workers=workers)

    async def reload_rules(self, request: Mapping[str, object]) -> Mapping[str, object]:
        """Answer `forwarder rules reload`: swap the rules, or say why the old ones stay."""
        async with self._changing:
            begun = self._clock.monotonic()
            try:
                wanted = await asyncio.to_thread(with_other_rules, self._wanted)
                change = await self._changed(wanted.rules, force=bool(request.get("force")))
                await self._change(State(wanted, self._certificate))
            except Unready as error:
                return self._kept(error.problems)
            counts = {"added": change.added, "removed": change.removed, "changed": change.changed}
            milliseconds = round(1000 * (self._clock.monotonic() - begun), 1)
            self._log.event("reload", what="rules", outcome="done", rules=wanted.rules.total, **counts)
            return {"ok": True, "rules": wanted.rules.total, "milliseconds": milliseconds, **counts}

    async def reload_keys(self, _: Mapping[str, object]) -> Mapping[str, object]:
        """Answer `forwarder keys rotate`: sign with the keys that are there now, or say why the old ones stay."""
        async with self._changing:
            try:
                wanted = await asyncio.to_thread(with_other_keys, self._wanted)
                await self._change(State(wanted, self._certificate))
            except Unready as error:
                return self._kept(error.problems)
            self._note_keys()
            count = len(wanted.sources.keys.keys)
            self._log.event("reload", what="keys", outcome="done", keys=count)
            return {"ok": True, "keys": count}

    def _note_keys(self) -> None:
        for text in self._wanted.sources.keys.warnings:
            self._log.event("alert", component="keys", text=text)

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
        async with self._changing:
            systemd.notify_reloading()
            try:
                wanted = await asyncio.to_thread(read, self._path)
                self._check_fixed(wanted.config)
                await self._changed(wanted.rules)
                certificate = await asyncio.to_thread(_certificate, wanted.config, self._log)
                await self._change(State(wanted, certificate))
            except Unready as error:
                self._kept(error.problems)
            except CertificateError as error:
                self._kept([str(error)])
            else:
                self._note_keys()
                self._log.event("reload", what="everything", outcome="done", rules=wanted.rules.total)
            finally:
                systemd.notify("READY=1")

    def _check_fixed(self, config: Config) -> None:
        changed = [key for key in _FIXED if getattr(config, key) != getattr(self._wanted.config, key)]
        if changed:
            raise Unready([f"{self._path}: {key}: changed: restart the gateway to apply it" for key in changed])

    async def _change(self, state: State) -> None:
        """Put a state in force in every process and here; raise `Unready`, and nothing has changed."""
        await self._crew.change(state)
        self._custody.adopt(state.wanted)
        self._admission.limits = listener_limits(state.wanted.config)
        self._wanted, self._certificate = state.wanted, state.certificate

    async def _watch_certificate(self) -> None:
        """Give workers a certificate whose files have changed: they do not look themselves."""
        given, pause = self._certificate.pair, _LOOK_EVERY
        while True:
            await asyncio.sleep(pause)
            async with self._changing:
                pause = _LOOK_EVERY
                self._certificate.current()
                if self._certificate.pair == given:
                    continue
                try:
                    await self._change(State(self._wanted, self._certificate))
                    given = self._certificate.pair
                except Unready as error:
                    self._log.event("alert", component="tls", text="; ".join(error.problems))
                    pause = _LOOK_AGAIN


def open_sockets(config: Config) -> list[socket.socket]:
    """Give the sockets that systemd handed over, or those that the configuration names; raise `BindError`."""
    return systemd.inherited_sockets() or [open_listening(str(one), _PATIENCE) for one in config.listen.smtp]


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
