"""The lab itself: its networks and name server are what the end-to-end tests believe them to be."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.rcode
import pytest

from deploy.demo.zone import Trouble
from tests.lab import world as lab
from tests.lab.world import World, loopback_world, namespace_refusal, namespace_world


@pytest.fixture
def loopback() -> Iterator[World]:
    with loopback_world() as world:
        yield world


@pytest.fixture
def namespace() -> Iterator[World]:
    if reason := namespace_refusal():
        pytest.skip(reason)
    with namespace_world() as world:
        yield world


def ask(world: World, name: str, kind: str) -> dns.message.Message:
    host, _, port = world.dns.address.rpartition(":")
    with world.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(2)
        sock.sendto(dns.message.make_query(name, kind).to_wire(), (host, int(port)))
        return dns.message.from_wire(sock.recv(4096))


def test_hosts_have_addresses_and_names_of_their_own(loopback: World) -> None:
    one, two = loopback.host("one.test", "example.test"), loopback.host("two.test")
    assert one.address != two.address
    assert str(ask(loopback, "one.test", "A").answer[0][0]) == one.address
    assert str(ask(loopback, "example.test", "MX").answer[0][0]) == "10 one.test."
    reverse = ".".join(reversed(two.address.split("."))) + ".in-addr.arpa"
    assert str(ask(loopback, reverse, "PTR").answer[0][0]) == "two.test."


def test_records_and_troubles_change_while_it_runs(loopback: World) -> None:
    loopback.dns.add("a.test", "A", "127.0.0.9")
    assert ask(loopback, "a.test", "A").rcode() == dns.rcode.NOERROR
    loopback.dns.trouble("a.test", Trouble.SERVFAIL)
    assert ask(loopback, "a.test", "A").rcode() == dns.rcode.SERVFAIL
    loopback.dns.trouble("a.test", None)
    loopback.dns.replace("a.test", "A")
    loopback.dns.replace("a.test", "TXT", "only text")
    answer = ask(loopback, "a.test", "A")
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    assert ask(loopback, "b.test", "A").rcode() == dns.rcode.NXDOMAIN
    assert ("b.test.", "A") in loopback.dns.asked


def test_long_answers_come_by_tcp(loopback: World) -> None:
    loopback.dns.add("long.test", "TXT", "x" * 3000)
    query = dns.message.make_query("long.test", "TXT").to_wire()
    host, _, port = loopback.dns.address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as stream, stream.makefile("rb") as incoming:
        stream.sendall(struct.pack("!H", len(query)) + query)
        size = struct.unpack("!H", incoming.read(2))[0]
        assert b"".join(dns.message.from_wire(incoming.read(size)).answer[0][0].strings) == b"x" * 3000


def test_two_loopback_worlds_do_not_meet(loopback: World) -> None:
    with loopback_world() as other:
        assert other.dns.address != loopback.dns.address


@pytest.mark.netns
def test_programs_in_a_namespace_see_the_labs_names(namespace: World) -> None:
    host = namespace.host("peer.test")
    done = namespace.run("getent", "ahostsv4", "peer.test")
    assert done.stdout.split()[0].decode() == host.address
    assert b"192.0.2.53" in namespace.run("cat", "/etc/resolv.conf").stdout


@pytest.mark.netns
def test_a_namespace_has_no_way_out(namespace: World) -> None:
    assert namespace.run("ip", "route", "get", "198.51.100.1").returncode != 0
    with namespace.entered(), socket.socket(socket.AF_INET) as sock, pytest.raises(OSError, match="unreachable"):
        sock.connect(("198.51.100.1", 25))


@pytest.mark.netns
def test_ipv6_hosts_listen_and_connect(namespace: World) -> None:
    host, client = namespace.host("six.test", ipv6=True), namespace.host("client.test", ipv6=True)
    with namespace.bind((host.address, host.port)) as listener, namespace.connect(host, client) as out:
        incoming, address = listener.accept()
        incoming.close()
    assert address[0] == client.address
    assert out is not None


@pytest.mark.netns
def test_the_namespace_ends_with_the_world(tmp_path: Path) -> None:
    if reason := namespace_refusal():
        pytest.skip(reason)
    with namespace_world() as world:
        holder = world.holder
        assert Path(f"/proc/{holder}/ns/net").exists()
    assert not Path(f"/proc/{holder}").exists()
    assert not world.folder.exists()


def test_missing_programs_are_named() -> None:
    assert lab.missing(["sh"]) == ""
    assert lab.missing(["no-such-program"]) == "no-such-program not installed"
