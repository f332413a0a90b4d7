"""`forwarder rules reload` while mail flows: nothing that was acknowledged is lost, nothing refused is delivered."""

import itertools
import re
import threading
from collections import Counter

from tests.lab.client import Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.world import Host, World

RELOADS = 14
CLIENTS = 4
MOST = 150  # messages of one client

OPEN = "[forward.test]\nsteady -> inbox@hop.test\nflip -> inbox@hop.test\n"
SHUT = '[forward.test]\nsteady -> inbox@hop.test\nflip -> reject "550 5.7.1 Not now"\nextra -> other@hop.test\n'
BROKEN = "[forward.test]\nsteady -> nowhere\nflip >> x@hop.test\n"


class _Load:
    """A client that sends numbered messages, in turn to both addresses, until it is told to stop."""

    def __init__(self, world: World, gateway: Gateway, source: Host, name: str) -> None:
        self._world, self._host, self._source, self._name = world, gateway.host, source, name
        self.codes: dict[str, int] = {}
        self.failure: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        """Send."""
        try:
            for number in itertools.count():
                if stop.is_set() or number >= MOST:
                    return
                with Client(self._world, self._host, self._source) as client:
                    client.ehlo()
                    for recipient in ("steady", "flip"):
                        mark = f"{self._name}-{number}-{recipient}"
                        octets = f"Subject: {mark}\r\n\r\ntext\r\n".encode()
                        self.codes[mark] = client.send("a@sender.test", f"{recipient}@forward.test", octets).code
                    client.command("QUIT")
        except BaseException as error:  # told by the test, which runs in another thread
            self.failure = error


def test_reloading_under_load_loses_nothing(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    source = loopback.host("client.test", "sender.test")
    with Hop(loopback, sink) as hop, Gateway(loopback, gate, OPEN) as gateway:
        loads = [_Load(loopback, gateway, source, f"c{number}") for number in range(CLIENTS)]
        stop = threading.Event()
        threads = [threading.Thread(target=load.run, args=(stop,)) for load in loads]
        for thread in threads:
            thread.start()
        try:
            for number in range(RELOADS):
                _reload(gateway, broken=number == RELOADS // 2, shut=number % 2 == 0)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        assert [load.failure for load in loads if load.failure] == []
        codes = {mark: code for load in loads for mark, code in load.codes.items()}
        arrived = Counter(_mark(message.octets) for message in hop.accepted)
        assert set(codes.values()) == {250, 550}, Counter(codes.values())
        assert arrived == Counter(mark for mark, code in codes.items() if code == 250)
        assert all(codes[mark] == 250 for mark in codes if mark.endswith("steady"))


def _reload(gateway: Gateway, *, broken: bool, shut: bool) -> None:
    done = gateway.reload(BROKEN if broken else SHUT if shut else OPEN)
    if broken:
        assert done.status == 1, done.output
        for line in (2, 3):
            assert re.search(rf"lab\.rules:{line}:\d+: \S", done.output), done.output
    else:
        assert done.status == 0, done.output


def _mark(octets: bytes) -> str:
    found = re.search(rb"^Subject: (\S+)", octets, re.MULTILINE)
    assert found is not None
    return found[1].decode()


def test_a_reload_tells_what_changed(loopback: World) -> None:
    gate = loopback.host("mx.forward.test")
    with Gateway(loopback, gate, OPEN) as gateway:
        done = gateway.reload(SHUT)
        assert done.status == 0
        assert "+1" in done.output, done.output  # extra
        assert "~1" in done.output, done.output  # flip
        assert re.search("[-\u2212]0", done.output), done.output
        assert gateway.events("reload") != []


def test_the_old_rules_stay_after_an_error(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    with Hop(loopback, sink) as hop, Gateway(loopback, gate, OPEN) as gateway:
        assert gateway.reload(BROKEN).status == 1
        gateway.rules_file.unlink()
        assert gateway.reload().status == 1
        with Client(loopback, gate) as client:
            client.ehlo()
            assert client.send("a@sender.test", "flip@forward.test", b"Subject: x\r\n\r\n").code == 250
        assert len(hop.accepted) == 1


def test_hang_up_reloads_and_sessions_keep_their_rules(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    with Hop(loopback, sink) as hop, Gateway(loopback, gate, OPEN) as gateway, Client(loopback, gate) as before:
        before.ehlo()
        assert before.command("MAIL FROM:<a@sender.test>").code == 250
        gateway.rules_file.write_text(SHUT)
        gateway.reread()
        gateway.wait_event("reload")
        assert before.command("RCPT TO:<flip@forward.test>").code == 250
        with Client(loopback, gate) as after:
            after.ehlo()
            assert after.send("a@sender.test", "flip@forward.test", b"").code == 550
            assert after.send("a@sender.test", "steady@forward.test", b"").code == 250
        assert before.command("DATA").code == 354
        before.write(b"Subject: before\r\n\r\n.\r\n")
        assert before.read().code == 250
        assert len(hop.accepted) == 2
