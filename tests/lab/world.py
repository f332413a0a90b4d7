"""The network of a test: every host has an address of its own, all use one SMTP port and one name server.

`loopback_world` needs no rights: hosts are 127.x.y.z on high ports. `namespace_world` needs root: a network and mount
namespace in which SMTP is port 25, DNS port 53 and /etc/resolv.conf is the lab's, so that Postfix and other programs
that ask libc see the lab's names. The namespace is held by a process that ends when its standard input is closed:
it goes with the test process whatever happens to that. Addresses are those for documentation (RFC 5737, RFC 3849).

Left out on purpose: routing, latency and packet loss.
"""

import contextlib
import ctypes
import functools
import ipaddress
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.dns import Dns

_CLONE_NEWNET = 0x40000000
_HIGH_PORTS = 20_025, 20_053  # below those that the system gives out by itself
_HOLDER = """
mount --bind "$1/resolv.conf" /etc/resolv.conf &&
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf &&
mount --bind "$1/hosts" /etc/hosts &&
ip link set lo up &&
ip addr add 192.0.2.1/24 dev lo && echo ready && cat
for file in $(find "$1" -name master.pid 2>/dev/null); do
    pid=$(tr -d " " <"$file") && grep -q "$1" "/proc/$pid/cmdline" 2>/dev/null && kill "$pid"
done
for delay in 0 0.2 0.5 1 2; do  # a Postfix that is just ending still writes
    sleep $delay; test -e "$1" && ! rm -rf "$1" 2>/dev/null || break
done
"""  # what comes after cat is for a test process that was killed: Postfix outlives its parent


@dataclass(frozen=True, slots=True)
class Host:
    """A name with an address and the port on which it speaks SMTP."""

    name: str
    address: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is an IPv6 one."""
        return ":" in self.address

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}"


class World:
    """The network, its names and a folder for what the hosts keep (short, for unix sockets; others may enter it)."""

    def __init__(self, folder: Path, network: str, ports: tuple[int, int], holder: int | None = None) -> None:
        self.folder = folder
        self.port, dns_port = ports
        self._network, self._used = network, 9
        self.holder = holder
        tcp = self.bind((network + "53", dns_port))
        try:
            udp = self.bind((network + "53", dns_port), socket.SOCK_DGRAM)
        except OSError:
            tcp.close()
            raise
        self.dns = Dns(udp, tcp)

    @property
    def isolated(self) -> bool:
        """Whether it is a namespace, where programs find the lab's names by themselves."""
        return self.holder is not None

    def host(self, name: str, *mail_domains: str, ipv6: bool = False) -> Host:
        """Give a new host an address with A (or AAAA) and PTR records, and make it the MX of domains."""
        self._used += 1
        if ipv6:
            address = f"2001:db8::{self._used:x}"
            self._ip("-6", "addr", "add", f"{address}/128", "dev", "lo", "nodad")
        else:
            address = f"{self._network}{self._used}"
            if self.isolated:
                self._ip("addr", "add", f"{address}/32", "dev", "lo")
        self.dns.add(name, "AAAA" if ipv6 else "A", address)
        self.dns.add(ipaddress.ip_address(address).reverse_pointer, "PTR", name + ".")
        for domain in mail_domains:
            self.dns.add(domain, "MX", f"10 {name}.")
        return Host(name, address, self.port)

    def visitor(self, address: str) -> Host:
        """Give a host of this very address, without names; it may be one of those that exist. Needs a namespace."""
        assert self.isolated
        length, *rest = ["128", "nodad"] if ":" in address else ["32"]
        self._ip("addr", "replace", f"{address}/{length}", "dev", "lo", *rest)
        return Host(address, address, self.port)

    def bind(self, address: tuple[str, int], kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        """Make a socket inside this world, bound to an address; streams listen."""
        with self.entered():
            sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            if kind is socket.SOCK_STREAM:
                sock.listen(128)
        except OSError:
            sock.close()
            raise
        return sock

    def connect(self, host: Host, source: Host | None = None, timeout: float = 20) -> socket.socket:
        """Connect to a host, from the address of another."""
        with self.entered():
            sock = socket.socket(socket.AF_INET6 if host.is_ipv6 else socket.AF_INET)
        try:
            sock.settimeout(timeout)
            if source is not None:
                sock.bind((source.address, 0))
            sock.connect((host.address, host.port))
        except OSError:
            sock.close()
            raise
        return sock

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the network: sockets made meanwhile belong to it for good."""
        if self.holder is None:
            yield
            return
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        away = os.open(f"/proc/{self.holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(away)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)
            os.close(away)

    def command(self, *words: str) -> list[str]:
        """Give the command line that runs a program in this world; it is told to end when the tests do."""
        prefix = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        if self.holder is not None:
            prefix += ["nsenter", "--target", str(self.holder), "--net", "--mount", f"--wd={self.folder}", "--"]
        return [*prefix, *words]

    def run(
        self, *words: str, text: bytes = b"", env: Mapping[str, str] | None = None, timeout: float = 30
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program in this world to its end."""
        return subprocess.run(
            self.command(*words), input=text, env=env, capture_output=True, timeout=timeout, check=False
        )

    def _ip(self, *words: str) -> None:
        subprocess.run(self.command("ip", *words), check=True)


@contextlib.contextmanager
def loopback_world() -> Iterator[World]:
    """Give a world on 127.x.y.z. The network is drawn by lot, so that several test processes do not meet."""
    with _folder() as folder, contextlib.ExitStack() as stack:
        for _ in range(20):
            network = f"127.{64 + secrets.randbelow(128)}.{secrets.randbelow(256)}."
            with contextlib.suppress(OSError):
                world = World(folder, network, _HIGH_PORTS)
                break
        else:
            raise OSError("no free network on loopback")
        stack.enter_context(world.dns)
        yield world


@contextlib.contextmanager
def namespace_world() -> Iterator[World]:
    """Give a world in a network namespace of its own."""
    with _folder() as folder, contextlib.ExitStack() as stack:
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\noptions timeout:2 attempts:2\n")
        (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\nservices: files\n")
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        holder = stack.enter_context(_holder(folder))
        subprocess.run(
            ["nsenter", "--target", str(holder), "--net", "ip", "addr", "add", "192.0.2.53/32", "dev", "lo"], check=True
        )
        world = World(folder, "192.0.2.", (25, 53), holder)
        stack.enter_context(world.dns)
        yield world


@functools.cache
def namespace_refusal() -> str:
    """Say why there can be no namespace here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    attempt = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False)
    return "" if attempt.returncode == 0 else "this kernel or container allows no network namespaces"


def missing(programs: Sequence[str]) -> str:
    """Say which of the programs is not installed; "" if all are."""
    absent = [name for name in programs if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    return f"{', '.join(absent)} not installed" if absent else ""


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    folder.chmod(0o755)  # mail servers deliver as users of their own
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _holder(folder: Path) -> Iterator[int]:
    words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", _HOLDER, "sh", str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise OSError("the network namespace could not be set up")
        yield process.pid  # leaving closes its standard input, and it ends


def _setns(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
