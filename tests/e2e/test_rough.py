"""Rough peers: clients that hang up at the wrong moment, hops that do, odd senders, many recipients. Nothing is lost,
nothing comes twice, nothing is left behind."""

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.corpus.sizes import of_size
from tests.lab.client import Client, stuff
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop, Script
from tests.lab.maildir import wait_for
from tests.lab.world import Host, World, loopback_world

RULES = "[forward.test]\nme -> inbox@hop.test\nbox* -> +${local}@hop.test\nteam -> " + ", ".join(
    f"u{number}@hop.test" for number in range(20)
)
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\ntext\r\n"


@dataclass
class Scene:
    """A client's host, the gateway and a hop."""

    world: World
    client: Host
    gateway: Gateway
    hop: Hop

    def begin(self, sender: str = "a@sender.test", recipient: str = "me@forward.test") -> Client:
        """Open a connection and go as far as 354."""
        client = Client(self.world, self.gateway.host, self.client)
        client.ehlo()
        assert client.command(f"MAIL FROM:<{sender}>").code == 250
        assert client.command(f"RCPT TO:<{recipient}>").code == 250
        assert client.command("DATA").code == 354
        return client

    def left(self) -> tuple[int, list[Path]]:
        """Give the number of the gateway's open descriptors, and the files with incoming mail."""
        process = self.gateway.process
        assert process is not None
        files = [file for file in (self.gateway.folder / "state" / "incoming").rglob("*") if file.is_file()]
        return len(os.listdir(f"/proc/{process.pid}/fd")), files


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with loopback_world() as world:
        client, gate = world.host("client.test", "sender.test"), world.host("mx.forward.test")
        settings = {"delivery.cutthrough_deadline": "5s"}
        with Hop(world, world.host("hop.test")) as hop, Gateway(world, gate, RULES, settings=settings) as gateway:
            yield Scene(world, client, gateway, hop)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.hop.down()
    everybody.hop.script = Script()
    everybody.hop.received.clear()
    everybody.hop.up()
    return everybody


def test_a_client_that_hangs_up_in_the_message_sends_nothing(scene: Scene) -> None:
    for size in (100, 3_000_000):
        with scene.begin() as client:
            client.write(stuff(of_size(size + 300))[:size])
    with scene.begin() as client:
        client.write(stuff(MESSAGE))
        assert client.read().code == 250
    assert [message.octets.endswith(MESSAGE) for message in scene.hop.received] == [True]


def test_a_client_that_hangs_up_before_the_reply_loses_nothing(scene: Scene) -> None:
    """The message is whole, so it goes on; what the sender does not know is the window of RFC 1047."""
    go_on, arrived = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        go_on.wait(4)

    scene.hop.say(before_dot=hold)
    message = MESSAGE + b"hung up\r\n"
    with scene.begin() as client:
        client.write(stuff(message))
        assert arrived.wait(20)
    go_on.set()
    scene.hop.wait()
    with scene.begin() as client:  # the gateway goes on as if nothing had been
        client.write(stuff(MESSAGE))
        assert client.read().code == 250
    assert [one.octets.endswith(message) for one in scene.hop.accepted] == [True, False]


def test_a_client_that_closes_its_half_after_the_dot_gets_the_reply(scene: Scene) -> None:
    with scene.begin() as client:
        client.write(stuff(MESSAGE))
        client.finish()
        answer = client.read()
    assert answer.code == 250
    assert len(scene.hop.accepted) == 1


def test_nothing_is_left_behind(scene: Scene) -> None:
    def load() -> None:
        for size in (500, 1_500_000):
            for hang_up in (False, True):
                with scene.begin() as client:
                    wire = stuff(of_size(size))
                    client.write(wire[: size // 2] if hang_up else wire)
                    if not hang_up:
                        assert client.read().code == 250

    load()
    before, _ = scene.left()
    for _ in range(5):
        load()
    wait_for(lambda: scene.left()[0] <= before + 2, what=f"{scene.left()[0]} descriptors, {before} before")
    assert scene.left()[1] == []


def test_a_large_message_takes_little_memory(scene: Scene) -> None:
    wire = stuff(of_size(25_000_000))
    with scene.begin() as client:
        client.write(stuff(MESSAGE))
        assert client.read().code == 250
    before = scene.gateway.peak()
    with scene.begin() as client:
        client.write(wire)
        assert client.read().code == 250
    assert scene.gateway.peak() - before < 8_000_000


def test_a_hop_that_refuses_in_the_middle_of_a_large_message(scene: Scene) -> None:
    """Its reply counts, also when it did not wait for the end and hung up."""
    listener = scene.world.bind((scene.hop.host.address.rpartition(".")[0] + ".200", scene.hop.host.port))
    scene.world.dns.replace("early.test", "A", listener.getsockname()[0])
    with listener:
        thread = threading.Thread(target=_refuse_early, args=(listener,))
        thread.start()
        scene.gateway.reload(RULES + "\nearly -> inbox@early.test\n")
        with scene.begin(recipient="early@forward.test") as client:
            client.write(stuff(of_size(8_000_000)))
            answer = client.read()
        thread.join(20)
    assert (answer.code, answer.text[:5]) in ((552, "5.3.4"), (451, "4.4.2")), answer


def _refuse_early(listener: socket.socket) -> None:
    stream, _ = listener.accept()
    with stream, stream.makefile("rb") as incoming:
        stream.sendall(b"220 early\r\n")
        for reply in (b"250 early", b"250 ok", b"250 ok", b"354 go on"):
            incoming.readline()
            stream.sendall(reply + b"\r\n")
        incoming.read(100_000)
        stream.sendall(b"552 5.3.4 too much\r\n")
        stream.shutdown(socket.SHUT_WR)
        while incoming.read(65_536):
            pass


@pytest.mark.parametrize(
    ("sender", "begins", "ends"),
    [
        ('"a b"@sender.test', '"SRS0=', '=sender.test=a b"@fwd.forward.test'),
        ("a+b=c@sender.test", "SRS0=", "=sender.test=a+b=c@fwd.forward.test"),
        ("A.Mixed@Sender.TEST", "SRS0=", "=sender.test=A.Mixed@fwd.forward.test"),
        ("x" * 64 + "@sender.test", "SRS0=", "=sender.test=" + "x" * 64 + "@fwd.forward.test"),
        ("SRS0=ab=cd=there.test=a@sender.test", "SRS1=", "=sender.test==ab=cd=there.test=a@fwd.forward.test"),
    ],
)
def test_odd_senders_are_rewritten_and_lead_back(scene: Scene, sender: str, begins: str, ends: str) -> None:
    with scene.begin(sender=sender) as client:
        client.write(stuff(MESSAGE))
        assert client.read().code == 250
    path = scene.hop.received[0].sender
    assert path.startswith(begins)
    assert path.endswith(ends)
    back = scene.gateway.run("srs", "decode", path).output.split("\n")[0]
    assert back.partition("@")[0] == sender.partition("@")[0]


def test_a_sender_that_cannot_be_rewritten_is_refused(scene: Scene) -> None:
    with Client(scene.world, scene.gateway.host, scene.client) as client:
        client.ehlo()
        answer = client.command("MAIL FROM:<" + "x" * 64 + "@" + "y" * 60 + "." + "z" * 60 + "." + "w" * 50 + ".test>")
        assert (answer.code, answer.text[:5]) == (553, "5.1.7"), answer


def test_a_hundred_recipients_and_no_more(scene: Scene) -> None:
    with Client(scene.world, scene.gateway.host, scene.client) as client:
        client.ehlo()
        client.command("MAIL FROM:<a@sender.test>")
        codes = [client.command(f"RCPT TO:<box{number}@forward.test>").code for number in range(101)]
        assert codes == [250] * 100 + [452]
        assert client.command("DATA").code == 354
        client.write(stuff(MESSAGE))
        assert client.read().code == 250
    got = sorted(name for message in scene.hop.accepted for name in message.recipients)
    assert got == sorted(f"+box{number}@hop.test" for number in range(100))
    assert all(message.octets.count(b"Delivered-To: box") == 1 for message in scene.hop.accepted)


def test_one_outcome_for_each_of_many(scene: Scene) -> None:
    """Some take it, some refuse for now: the sender is told 250, and then only the rest get it."""
    names = {f"u{number}@hop.test" for number in range(20)}
    later = {f"u{number}@hop.test" for number in range(0, 20, 3)}
    scene.hop.say(recipients=dict.fromkeys(later, "450 4.2.1 later"))
    with scene.begin(recipient="team@forward.test") as client:
        client.write(stuff(MESSAGE + b"many\r\n"))
        answer = client.read()
    assert answer.code == 250, answer
    assert {name for one in scene.hop.accepted for name in one.recipients} == names - later
    (entry,) = json.loads(scene.gateway.run("queue", "list", "--json").output)["messages"]
    assert {part["destination"] for part in entry["to"] if part["state"] == "queued"} == later
    scene.hop.say(recipients={})
    assert scene.gateway.run("queue", "retry", "--all").status == 0
    wait_for(lambda: "empty" in scene.gateway.run("queue", "list").output, what="the queue does not empty")
    got = sorted(name for one in scene.hop.accepted for name in one.recipients)
    assert got == sorted(names)


def test_nothing_that_a_client_says_makes_a_line_of_the_log(scene: Scene) -> None:
    with Client(scene.world, scene.gateway.host, scene.client) as client:
        client.ehlo()
        client.command(b'MAIL FROM:<a\x1b[31m\x0b{"event": "forged"}@sender.test>')
        client.command("EHLO forged\x07")
        client.ehlo()
        assert client.command("MAIL FROM:<turned\u202earound@sender.test> SMTPUTF8").code == 250
        client.command("RCPT TO:<x\u2028@forward.test>")
        client.command("RCPT TO:<nobody\u202e@forward.test>")
    wait_for(lambda: "nobody" in scene.gateway.text)
    assert "turned" in scene.gateway.text
    assert scene.gateway.events("forged") == []
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", scene.gateway.text)
