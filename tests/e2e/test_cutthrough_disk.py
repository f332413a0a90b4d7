"""Cut-through never touches the disk for a message under 1 MB.

Seen from outside, in two ways that do not depend on each other: the kernel's count of octets that each process has had
written to a disk (`write_bytes` of proc(5)), and what lies below `state_dir`, each folder with the time at which a name
came or went. The log is silenced, since it is a file here. That both ways see what they should is shown by a message
that does touch the disk: one over 1 MB, and one that is queued.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.client import Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.world import Host, World

LINE = b"0123456789abcdef" * 4 + b"\r\n"
HEAD = b"From: a@sender.test\r\nSubject: x\r\n\r\n"
SIZES = (100, 10_000, 300_000, 990_000)  # the gateway's own lines come on top, and are not kept with the content
LARGE = 1_500_000

Names = dict[str, tuple[int, int]]


@pytest.fixture
def gate(loopback: World) -> Host:
    loopback.dns.add("sender.test", "TXT", "v=spf1 ip4:127.0.0.0/8 -all")
    return loopback.host("mx.forward.test")


@pytest.fixture
def hop(loopback: World) -> Iterator[Hop]:
    with Hop(loopback, loopback.host("mx.hop.test", "hop.test")) as found:
        yield found


@pytest.fixture(params=[1, 2], ids=["one process", "two workers"])
def gateway(request: pytest.FixtureRequest, loopback: World, gate: Host) -> Iterator[Gateway]:
    settings = {"workers": request.param, "log.level": "error", "delivery.cutthrough_deadline": "2s"}
    with Gateway(loopback, gate, "[forward.test]\nme -> inbox@hop.test\n", settings=settings) as found:
        yield found


def message(size: int) -> bytes:
    return HEAD + LINE * ((size - len(HEAD)) // len(LINE))


def send(world: World, gate: Host, sizes: Sequence[int]) -> None:
    for size in sizes:
        with Client(world, gate) as client:
            client.ehlo()
            assert client.send("a@sender.test", "me@forward.test", message(size)).code == 250


def written(gateway: Gateway) -> int:
    """Octets that all processes of the gateway have had written to a disk so far."""
    assert gateway.process is not None
    parent = gateway.process.pid
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    counts = [Path(f"/proc/{pid}/io").read_text() for pid in (str(parent), *children)]
    return sum(int(line.partition(":")[2]) for text in counts for line in text.splitlines() if line.startswith("write"))


def names(gateway: Gateway) -> Names:
    """Everything below the state folder, with size and time of change."""
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in _below(gateway.folder / "state")}


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in (folder, *folder.rglob("*")):
        yield path, path.stat()


def test_nothing_is_written(loopback: World, gate: Host, gateway: Gateway, hop: Hop) -> None:
    send(loopback, gate, SIZES[:1])  # the first one may load what was not loaded yet
    before, lay = written(gateway), names(gateway)
    send(loopback, gate, SIZES * 3)
    assert written(gateway) == before
    assert names(gateway) == lay
    assert len(hop.accepted) == 1 + 3 * len(SIZES)


def test_what_is_written_is_seen(loopback: World, gate: Host, gateway: Gateway, hop: Hop) -> None:
    before, lay = written(gateway), names(gateway)
    send(loopback, gate, [LARGE])
    if written(gateway) == before:
        pytest.skip("the file system of the temporary folder is in memory, and the kernel does not count it")
    assert written(gateway) - before >= LARGE // 2
    hop.down()
    send(loopback, gate, SIZES[:1])
    assert names(gateway) != lay
