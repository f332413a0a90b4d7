"""Our SRS and PostSRSd 1.x (its TCP tables, tcp_table(5)) as two forwarders in a row, in either order."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from forwarder.model.address import Address, parse_mailbox
from forwarder.rewrite.srs import Srs, SrsError

POSTSRSD = shutil.which("postsrsd", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
OURS = Srs("fwd.example.org", [b"a secret of ours"], 21)
ORIGINALS = [
    "alice@b.example",
    "Alice.B+tag@b.example",
    "a=b=c@b.example",
    "v" * 60 + "@long.b.example",
    "x@xn--bcher-kva.example",
]

pytestmark = pytest.mark.skipif(POSTSRSD is None, reason="needs Debian's postsrsd")


@dataclass(frozen=True)
class PostSrsd:
    """A running PostSRSd by the ports of its two tables."""

    forward: int
    reverse: int

    def encode(self, address: Address) -> Address:
        return parse_mailbox(ask(self.forward, str(address)))

    def decode(self, address: Address) -> Address:
        return parse_mailbox(ask(self.reverse, str(address)))


def ask(port: int, key: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile("rb") as answers:
        connection.sendall(f"get {quote(key, safe='@=+/')}\n".encode())
        code, _, text = answers.readline().decode().strip().partition(" ")
    assert code == "200", text
    return text


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def start(secrets: Path, separator: str) -> tuple[subprocess.Popen[bytes], PostSrsd]:
    """Start it; another process may take the ports in between, so try more than once."""
    assert POSTSRSD is not None
    for _ in range(5):
        forward, reverse = free_ports()
        process = subprocess.Popen(
            [
                POSTSRSD,
                "-4",
                "-l127.0.0.1",
                f"-s{secrets}",
                "-dhop.example",
                f"-a{separator}",
                f"-f{forward}",
                f"-r{reverse}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(200):
            if process.poll() is not None:
                break
            if answers(forward) and answers(reverse):
                return process, PostSrsd(forward, reverse)
            time.sleep(0.02)
        process.kill()
        process.wait()
    raise AssertionError("postsrsd does not start")


@pytest.fixture(scope="module", params=["=", "+", "-"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostSrsd]:
    secrets = tmp_path_factory.mktemp("postsrsd") / "secret"
    secrets.write_text("a secret of the other hop\n")
    process, postsrsd = start(secrets, request.param)
    yield postsrsd
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def day() -> int:
    return int(time.time()) // 86_400


@pytest.mark.parametrize("original", ORIGINALS)
def test_its_srs0_becomes_our_srs1_and_leads_back(other: PostSrsd, original: str, day: int) -> None:
    theirs = other.encode(parse_mailbox(original))
    assert theirs.local.startswith("SRS0")
    made = OURS.encode(theirs, day)
    assert made.local.startswith("SRS1=")
    assert OURS.decode(made, day) == theirs
    assert other.decode(OURS.decode(made, day)) == parse_mailbox(original)


@pytest.mark.parametrize("original", ORIGINALS)
def test_our_srs0_becomes_its_srs1_and_leads_back(other: PostSrsd, original: str, day: int) -> None:
    made = OURS.encode(parse_mailbox(original), day)
    theirs = other.encode(made)
    assert theirs.local.startswith("SRS1")
    assert theirs.domain == "hop.example"
    assert other.decode(theirs) == made
    assert OURS.decode(other.decode(theirs), day) == parse_mailbox(original)


def test_its_srs1_becomes_our_srs1_that_skips_it(other: PostSrsd, day: int) -> None:
    first = Srs("first.example", [b"the first hop"], 21)
    made = OURS.encode(other.encode(first.encode(Address("alice", "b.example"), day)), day)
    assert made.local.startswith("SRS1=")
    back = OURS.decode(made, day)
    assert back.domain == "first.example"
    assert first.decode(back, day) == Address("alice", "b.example")


def test_our_srs1_becomes_its_srs1_that_skips_us(other: PostSrsd, day: int) -> None:
    first = Srs("first.example", [b"the first hop"], 21)
    theirs = other.encode(OURS.encode(first.encode(Address("alice", "b.example"), day), day))
    assert theirs.domain == "hop.example"
    back = other.decode(theirs)
    assert back.domain == "first.example"
    assert first.decode(back, day) == Address("alice", "b.example")


def test_our_srs0_that_it_wrapped_is_unwrapped_when_it_comes_round(other: PostSrsd, day: int) -> None:
    made = OURS.encode(Address("alice", "b.example"), day)
    assert OURS.encode(other.encode(made), day) == made


def test_the_stamp_is_the_same_as_its_own(other: PostSrsd, day: int) -> None:
    theirs = other.encode(Address("alice", "b.example")).local.split("=")
    stamps = {OURS.encode(Address("alice", "b.example"), near).local.split("=")[2] for near in (day, day + 1)}
    assert theirs[-3] in stamps


def test_nothing_of_it_is_taken_for_ours(other: PostSrsd, day: int) -> None:
    theirs = other.encode(Address("alice", "b.example"))
    assert not OURS.is_ours(theirs)
    with pytest.raises(SrsError):
        OURS.decode(Address(theirs.local, OURS.domain), day)
