"""The real gateway: `forwarder serve` as a process of a world, with a configuration and rules written for the test.

It is ready when it says so (sd_notify), and after every test it must end with status 0 on SIGTERM, without a traceback
in its output and without having met the unexpected: `Gateway` asserts all three when its `with` block ends without an
error. Logs are JSON lines.
"""

import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.lab.maildir import wait_for
from tests.lab.process import Process, wait_gone
from tests.lab.world import Host, World

SRS_SECRET = "a secret of the lab, long enough"
_READY_TIMEOUT = 30.0
_INHERIT = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""

Value = str | int | bool | list[str] | dict[str, str]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    status: int
    output: str


class Gateway(Process):
    """One gateway. `settings` are `{"section.key": value}`, changing what the lab sets by itself.

    `also` are further hosts to listen on, `secret` signs SRS. The SRS domain is `fwd.` before the domain of the host.
    """

    def __init__(
        self,
        world: World,
        host: Host,
        rules: str,
        *,
        settings: Mapping[str, Value] | None = None,
        also: Iterable[Host] = (),
        secret: str = SRS_SECRET,
    ) -> None:
        super().__init__(world, world.folder / f"gateway-{host.name}")
        self.host = host
        self.srs_domain = "fwd." + host.name.partition(".")[2]
        self.configuration = self.folder / "forwarder.toml"
        self.rules_file = self.folder / "lab.rules"
        self._listen: socket.socket | None = None
        for name in ("state", "run"):
            (self.folder / name).mkdir()
        secrets = self.folder / "state" / "srs.secrets"
        secrets.touch(mode=0o600)
        secrets.write_text(secret + "\n")
        self.rules_file.write_text(rules)
        self._hosts, self._settings = [host, *also], dict(settings or {})
        self._configure()
        if not world.dns.has(self.srs_domain):
            world.dns.add(self.srs_domain, "MX", f"10 {host.name}.")

    def _configure(self) -> None:
        hosts = self._hosts
        everything: dict[str, Value] = {
            "hostname": self.host.name,
            "postmaster": "postmaster@elsewhere.test",
            "rules": str(self.rules_file),
            "state_dir": f"{self.folder}/state",
            "run_dir": f"{self.folder}/run",
            "workers": 1,
            "listen.smtp": [f"[{h.address}]:{h.port}" if h.is_ipv6 else f"{h.address}:{h.port}" for h in hosts],
            "listen.http": "",
            "limits.connections_per_client": 200,
            "limits.greeting_delay": "0s",
            "srs.domain": self.srs_domain,
            "delivery.port": self.world.port,
            "delivery.cutthrough_deadline": "10s",
            "dns.nameservers": [self.world.dns.address],
            "dns.timeout": "2s",
            "log.format": "json",
            "log.level": "debug",
        }
        if any(not host.is_ipv6 for host in hosts):
            everything["delivery.source_addresses"] = [host.address for host in hosts]
        everything.update(self._settings)
        self.configuration.write_text(_toml(everything))

    def start(self) -> None:
        """Start, and wait for READY=1."""
        path = self.folder / "notify"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(0.2)
            self._spawn(str(path))
            wait_for(lambda: self._told(notify), _READY_TIMEOUT, "no READY=1 came")

    def inherit(self, listener: socket.socket) -> None:
        """Let the next start find this listening socket by LISTEN_FDS (sd_listen_fds(3)) in place of its own."""
        self._listen = listener

    def _spawn(self, notify: str) -> None:
        env = {**os.environ, "NOTIFY_SOCKET": notify, "FORWARDER_CONFIG": str(self.configuration)}
        words = self._words("serve")
        keep: tuple[int, ...] = ()
        if self._listen is not None:
            keep = (self._listen.fileno(),)
            words = [sys.executable, "-c", _INHERIT, str(keep[0]), *words]
        self.spawn(words, env, pass_fds=keep)

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "forwarder", *words]

    def _told(self, notify: socket.socket) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the gateway ended at once: {self.text}"
        try:
            return b"READY=1" in notify.recv(4096).split(b"\n")
        except TimeoutError:
            return False

    def run(self, *words: str) -> Ran:
        """Run another command of forwarder with this configuration."""
        env = {**os.environ, "FORWARDER_CONFIG": str(self.configuration)}
        done = self.world.run(*self._words(*words), env=env)
        return Ran(done.returncode, (done.stdout + done.stderr).decode())

    def reload(self, rules: str | None = None) -> Ran:
        """Write new rules, if given, and ask for a reload."""
        if rules is not None:
            fresh = Path(f"{self.rules_file}.new")
            fresh.write_text(rules)
            fresh.replace(self.rules_file)
        return self.run("rules", "reload")

    def change(self, settings: Mapping[str, Value]) -> None:
        """Change settings, and wait until they are in force."""
        self._settings |= settings
        self._configure()
        count = len(self.events("reload"))
        self.reread()
        assert self.wait_event("reload", count + 1)[-1]["outcome"] == "done"

    def peak(self) -> int:
        """Give the most memory that it ever had, in octets."""
        assert self.process is not None
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024

    def workers(self) -> dict[int, int]:
        """Give the processes that serve clients by their numbers, as the log has told of them."""
        latest = {event["worker"]: event["pid"] for event in self.events("worker")}
        return {number: pid for number, pid in latest.items() if isinstance(number, int) and isinstance(pid, int)}

    def pid_of(self, worker: int) -> int:
        """Give the process of a worker."""
        return self.workers()[worker]

    def zombies(self) -> list[int]:
        """Give the children that have ended and that nobody has taken note of."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if " Z " in Path(f"/proc/{pid}/stat").read_text()]

    def terminate(self) -> None:
        """Send SIGTERM without waiting."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def wait_end(self) -> int:
        """Wait until it has ended by itself, with all its processes; give the exit status. It may be started again."""
        process, self.process = self.process, None
        assert process is not None
        status = process.wait(30)
        wait_gone(process.pid)
        return status

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.wait_end()

    def reread(self) -> None:
        """Send SIGHUP, which asks for a reload."""
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    @property
    def text(self) -> str:
        """What it wrote so far."""
        return self.output.read_text(errors="backslashreplace") if self.output.exists() else ""

    def events(self, name: str = "") -> list[dict[str, object]]:
        """Give the log's events, all or those of a name."""
        return [event for event in _objects(self.text) if not name or event["event"] == name]

    def wait_event(self, name: str, count: int = 1) -> list[dict[str, object]]:
        """Wait until that many events of a name were logged; give them."""
        return wait_for(lambda: found if len(found := self.events(name)) >= count else [], what=f"no {name} event")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        status = self.end() if self.process is not None else 0
        if error is None:
            assert status == 0, self.text[-4000:]
            assert "Traceback" not in self.text, self.text[-8000:]
            unexpected = [event for event in self.events("alert") if "error" in event]  # an exception that was caught
            assert unexpected == []
        else:
            error.add_note("the gateway said:\n" + self.text[-4000:])


def ours_and_original(received: bytes, original: bytes) -> tuple[bytes, bytes]:
    """Split what a next hop got into the lines put in front and the rest; the rest must be the original octets."""
    assert received.endswith(original), difference(received, original)
    return received[: len(received) - len(original)], original


def difference(received: bytes, original: bytes) -> str:
    """Say where the end of `received` begins to differ from `original`, seen from the end."""
    common = 0
    for ours, theirs in zip(reversed(received), reversed(original), strict=False):
        if ours != theirs:
            break
        common += 1
    at, there = len(received) - common, len(original) - common
    return (
        f"the last {common} of {len(original)} octets are the same; before that "
        f"{received[max(0, at - 60) : at + 20]!r} stands for {original[max(0, there - 60) : there + 20]!r}"
    )


def _objects(text: str) -> Iterator[dict[str, object]]:
    for line in text.splitlines():
        if re.match(r'\{"time"', line):
            with contextlib.suppress(json.JSONDecodeError):  # the last line may be half written
                yield json.loads(line)


def _toml(settings: Mapping[str, Value]) -> str:
    """Write `{"section.key": value}` as TOML; JSON's strings, numbers and lists are TOML's too."""
    sections: dict[str, list[str]] = {"": []}
    for path, value in settings.items():
        section, _, key = path.rpartition(".")
        if isinstance(value, dict):
            lines = [f"{json.dumps(name)} = {json.dumps(item)}" for name, item in value.items()]
            sections.setdefault(path, []).extend(lines)
        else:
            sections.setdefault(section, []).append(f"{key} = {json.dumps(value)}")
    blocks = ["\n".join(sections.pop(""))]
    blocks += [f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()]
    return "\n\n".join(blocks) + "\n"
