"""Start and end of the real process: readiness, inherited sockets, SIGTERM in the middle of a transfer."""

import itertools
import threading
from collections import Counter

import pytest

from tests.lab.client import Client, stuff
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.world import World

RULES = "[forward.test]\nme -> inbox@hop.test\n"
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\n" + b"text\r\n" * 20_000


def test_sigterm_lets_a_transfer_finish(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    with Hop(loopback, sink) as hop, Gateway(loopback, gate, RULES) as gateway, Client(loopback, gate) as client:
        client.ehlo()
        assert client.command("MAIL FROM:<a@sender.test>").code == 250
        assert client.command("RCPT TO:<me@forward.test>").code == 250
        assert client.command("DATA").code == 354
        wire = stuff(MESSAGE)
        client.write(wire[:50_000])
        gateway.terminate()
        gateway.wait_event("stopping")
        with pytest.raises(ConnectionRefusedError):
            loopback.connect(gate)
        client.write(wire[50_000:])
        assert client.read().code == 250
        assert gateway.wait_end() == 0
        assert [message.octets.endswith(MESSAGE) for message in hop.accepted] == [True]


def test_sigterm_waits_for_the_next_hops_answer(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    go_on = threading.Event()
    with Hop(loopback, sink) as hop, Gateway(loopback, gate, RULES) as gateway, Client(loopback, gate) as client:
        arrived = threading.Event()

        def hold() -> None:
            arrived.set()
            go_on.wait(20)

        hop.say(before_dot=hold)
        client.ehlo()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<me@forward.test>"):
            assert client.command(line).code == 250
        assert client.command("DATA").code == 354
        client.write(stuff(MESSAGE))
        assert arrived.wait(20)
        gateway.terminate()
        gateway.wait_event("stopping")
        go_on.set()
        assert client.read().code == 250
        assert gateway.wait_end() == 0
        assert len(hop.accepted) == 1


def test_sigterm_tells_idle_clients(loopback: World) -> None:
    gate = loopback.host("mx.forward.test")
    with Gateway(loopback, gate, RULES) as gateway, Client(loopback, gate) as client:
        client.ehlo()
        gateway.terminate()
        answer = client.read()
        assert (answer.code, answer.text[:5]) == (421, "4.3.2")
        assert client.closed()
        assert gateway.wait_end() == 0


def test_sockets_are_inherited_and_a_restart_refuses_nobody(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    with Hop(loopback, sink) as hop, loopback.bind((gate.address, gate.port)) as listener:
        gateway = Gateway(loopback, gate, RULES)
        gateway.inherit(listener)
        early = loopback.connect(gate)  # before anybody serves: the kernel holds it
        with gateway, early, early.makefile("rb") as incoming:
            assert incoming.readline().startswith(b"220 mx.forward.test ")
            early.sendall(b"QUIT\r\n")
        with loopback.connect(gate) as between, between.makefile("rb") as incoming:
            with gateway:
                assert incoming.readline().startswith(b"220 ")
                with Client(loopback, gate) as client:
                    client.ehlo()
                    assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
            between.sendall(b"QUIT\r\n")
        assert len(hop.accepted) == 1


def test_it_answers_again_after_a_kill(loopback: World) -> None:
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    with Hop(loopback, sink) as hop:
        gateway = Gateway(loopback, gate, RULES)
        gateway.start()
        gateway.kill()
        with gateway, Client(loopback, gate) as client:  # whatever the dead one left does not stand in the way
            client.ehlo()
            assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
        assert len(hop.accepted) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("rules", "lab.rules:2:"),
        ("secrets", "srs.secrets"),
        ("configuration", "limits.no_such_key"),
        ("port", "listens there already"),
    ],
)
def test_it_does_not_start_half(loopback: World, broken: str, reason: str) -> None:
    gate = loopback.host("mx.forward.test")
    gateway = Gateway(loopback, gate, RULES, settings={"limits.no_such_key": 1} if broken == "configuration" else {})
    if broken == "rules":
        gateway.rules_file.write_text("[forward.test]\nme -> nowhere\n")
    elif broken == "secrets":
        (gateway.folder / "state" / "srs.secrets").chmod(0o644)
    taken = loopback.bind((gate.address, gate.port)) if broken == "port" else None
    try:
        done = gateway.run("serve")
    finally:
        if taken:
            taken.close()
    assert done.status == 1
    assert reason in done.output
    assert "Traceback" not in done.output


def test_a_restart_under_load_loses_nothing(loopback: World) -> None:
    """Clients go on while the gateway is stopped and started, three times, on a socket that stays open."""
    gate, sink = loopback.host("mx.forward.test"), loopback.host("hop.test")
    codes: dict[str, int] = {}
    stop = threading.Event()

    def send(name: str) -> None:
        for number in itertools.count():
            if stop.is_set() or number >= 300:
                return
            mark = f"{name}-{number}"
            try:
                with Client(loopback, gate) as client:
                    client.ehlo()
                    octets = f"Subject: {mark}\r\n\r\n".encode() + b"text\r\n" * 5000
                    codes[mark] = client.send("a@sender.test", "me@forward.test", octets).code
            except (AssertionError, OSError):  # told 421 in the middle, or cut off: nothing was promised
                codes[mark] = 0

    with Hop(loopback, sink) as hop, loopback.bind((gate.address, gate.port)) as listener:
        gateway = Gateway(loopback, gate, RULES)
        gateway.inherit(listener)
        threads = [threading.Thread(target=send, args=(f"c{number}",)) for number in range(3)]
        with gateway:
            for thread in threads:
                thread.start()
            for round_ in range(3):
                hop.wait(len(hop.accepted) + 10)
                assert gateway.end() == 0, round_
                gateway.start()
            stop.set()
            for thread in threads:
                thread.join(60)
        subjects = (message.octets.partition(b"Subject: ")[2].partition(b"\r\n")[0] for message in hop.accepted)
        arrived = Counter(subject.decode() for subject in subjects)
        assert max(arrived.values()) == 1
        assert {mark for mark, code in codes.items() if code == 250} == set(arrived)
        assert Counter(codes.values())[250] >= 30
