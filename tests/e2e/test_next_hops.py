"""Next hops of every kind: down, slow, choosy, hard to find. The sender always gets a true answer."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.demo.zone import Trouble
from tests.lab.client import Answer, Client, send_once
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop, Script
from tests.lab.maildir import wait_for
from tests.lab.world import Host, World, loopback_world

DOMAINS = (
    "one",
    "two",
    "pair",
    "plain",
    "null",
    "broken",
    "nowhere",
    "alias",
    "cname",
    "none",
    "silent",
    "back",
    "mirror",
)
RULES = (
    "[forward.test]\n"
    + "".join(f"{name} -> inbox@{name}.test\n" for name in DOMAINS if name != "nowhere")
    + "nowhere -> inbox@nowhere.invalid\nboth -> inbox@one.test, inbox@two.test\n"
    + "many -> a@one.test, b@one.test\nfull -> full@two.test\n"
    + "via -> inbox@elsewhere.test via [{address}]:{port}\nliteral -> inbox@[{address}]\n"
)
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\ntext\r\n"
EIGHT_BIT = "From: a@sender.test\r\nSubject: x\r\n\r\nGrüße\r\n".encode()
_NUMBERS = itertools.count()


@dataclass
class Scene:
    """A client's host, the gateway and two hops; `two` is a second MX of one.test as well."""

    world: World
    client: Host
    gateway: Gateway
    one: Hop
    two: Hop

    def again(self) -> None:
        """Begin a scene: everybody is up, nobody has any mail."""
        for hop in (self.one, self.two):
            hop.down()
            hop.script = Script()
            hop.received.clear()
            hop.connections = 0
            hop.up()

    def send(self, name: str, octets: bytes = b"") -> Answer:
        """Send to an alias."""
        return send_once(
            self.world, self.gateway.host, ("a@sender.test", f"{name}@forward.test"), octets or fresh(), self.client
        )

    def queue(self) -> list[dict[str, Any]]:
        """What waits in the queue."""
        ran = self.gateway.run("queue", "list", "--json")
        assert ran.status == 0, ran.output
        messages: list[dict[str, Any]] = json.loads(ran.output)["messages"]
        return messages


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    with loopback_world() as world:
        client, gate = world.host("client.test", "sender.test"), world.host("mx.forward.test")
        first, second = world.host("mx1.one.test", "one.test"), world.host("mx2.one.test", "two.test")
        world.dns.add("one.test", "MX", "20 mx2.one.test.")
        world.dns.add(
            "pair.test", "MX", "10 mx1.pair.test."
        )  # names of its own: what was down is asked last for a while
        world.dns.add("pair.test", "MX", "20 mx2.pair.test.")
        world.dns.add("mx1.pair.test", "A", first.address)
        world.dns.add("mx2.pair.test", "A", second.address)
        world.dns.add("plain.test", "A", first.address)
        world.dns.add("null.test", "MX", "0 .")
        world.dns.add("alias.test", "CNAME", "one.test.")
        world.dns.add("cname.test", "MX", "10 host.cname.test.")
        world.dns.add("host.cname.test", "CNAME", first.name + ".")
        world.dns.add("none.test", "TXT", "no mail host at all")
        world.dns.trouble("broken.test", Trouble.SERVFAIL)
        world.dns.trouble("silent.test", Trouble.SILENT)
        world.dns.add("back.test", "MX", "10 mx.forward.test.")
        world.dns.replace("mx.forward.test", "A", world.host("router.test").address)  # as behind a NAT
        world.dns.add("mirror.test", "MX", "10 mx.mirror.test.")
        world.dns.add("mx.mirror.test", "A", gate.address)
        rules = RULES.format(address=first.address, port=first.port)
        with (
            Hop(world, first) as one,
            Hop(world, second) as two,
            Gateway(
                world, gate, rules, settings={"delivery.cutthrough_deadline": "2s", "delivery.retry": ["1s", "2s"]}
            ) as gateway,
        ):
            yield Scene(world, client, gateway, one, two)


@pytest.fixture
def scene(everybody: Scene) -> Scene:
    everybody.again()
    return everybody


def fresh() -> bytes:
    """Give a message that was not sent before: a sender's retry would be recognised."""
    return MESSAGE.replace(b"Subject: x", b"Subject: %d" % next(_NUMBERS))


@pytest.mark.parametrize("name", ["one", "plain", "alias", "cname", "via", "literal"])
def test_every_way_to_find_the_hop(scene: Scene, name: str) -> None:
    answer = scene.send(name)
    assert answer.code == 250, answer
    assert len(scene.one.accepted) == 1
    assert scene.two.received == []


@pytest.mark.parametrize(
    ("name", "code", "enhanced"),
    [
        ("null", 556, "5.1.10"),
        ("nowhere", 550, "5.1.2"),
        ("broken", 451, "4.4.3"),
        ("none", 550, "5."),
        ("silent", 451, "4.4"),
    ],
)
def test_nobody_to_ask(scene: Scene, name: str, code: int, enhanced: str) -> None:
    answer = scene.send(name)
    assert (answer.code, answer.text[: len(enhanced)]) == (code, enhanced), answer


@pytest.mark.parametrize("name", ["back", "mirror"])
def test_a_domain_whose_mail_comes_to_us_is_a_loop(scene: Scene, name: str) -> None:
    """We know ourselves by name and by address."""
    answer = scene.send(name)
    assert (answer.code, answer.text[:5]) == (554, "5.4.6"), answer
    assert "comes to this gateway" in answer.text


def test_a_second_mx_stands_in(scene: Scene) -> None:
    scene.one.down()
    assert scene.send("pair").code == 250
    assert len(scene.two.accepted) == 1


def test_a_hop_that_is_down_is_temporary(scene: Scene) -> None:
    scene.two.down()
    answer = scene.send("two")
    assert (answer.code, answer.text[:2]) == (451, "4."), answer
    scene.two.up()
    assert scene.send("two").code == 250
    assert len(scene.two.accepted) == 1


@pytest.mark.parametrize("greeting", ["421 4.3.2 not now", "554 5.3.2 no service", ""])
def test_a_greeting_that_refuses_is_no_verdict_on_the_message(scene: Scene, greeting: str) -> None:
    scene.two.say(greeting=greeting)
    answer = scene.send("two")
    assert (answer.code, answer.text[:2]) == (451, "4."), answer


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"mail": "550 5.7.1 not from you"}, 550, "5.7.1"),
        ({"recipients": {"full@two.test": "550 5.1.1 nobody of that name"}}, 550, "5.1.1"),
        ({"recipients": {"full@two.test": "452 4.2.2 mailbox full"}}, 451, "4.2.2"),
        ({"dot": "554 5.7.1 this is spam"}, 554, "5.7.1"),
        ({"dot": "451 4.7.1 greylisted"}, 451, "4.7.1"),
        ({"dot": "550 without an enhanced code"}, 550, "5.0.0"),
        ({"dot": ""}, 451, "4."),
    ],
)
def test_the_hops_verdict_is_the_senders_answer(scene: Scene, change: dict[str, object], code: int, text: str) -> None:
    scene.two.say(**change)
    answer = scene.send("full" if "recipients" in change else "two")
    assert (answer.code, answer.text[: len(text)]) == (code, text), answer
    said = next((str(value) for value in change.values() if isinstance(value, str) and value), "")
    assert said[4:] in answer.text, "the hop's own words are quoted"


def test_control_characters_and_long_replies_do_no_harm(scene: Scene) -> None:
    scene.two.say(dot="550-5.7.1 one\x1b[31m\t\x07\r\n550-" + "x" * 3000 + "\r\n550 5.7.1 end\u202e")
    answer = scene.send("two")
    assert answer.code == 550
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202e]", answer.text), answer
    assert all(len(line) < 510 for line in answer.text.split("\n"))
    assert all("\x1b" not in line for line in scene.gateway.text.splitlines())


def test_no_8bitmime_is_a_clear_refusal(scene: Scene) -> None:
    scene.two.say(keywords=("PIPELINING", "ENHANCEDSTATUSCODES"))
    answer = scene.send("two", EIGHT_BIT)
    assert (answer.code, answer.text[:5]) == (554, "5.6.3"), answer
    assert "8BITMIME" in answer.text
    assert scene.two.received == []
    assert scene.send("two").code == 250


def test_a_connection_that_was_closed_says_nothing_about_the_next(scene: Scene) -> None:
    """What a server once offered is no reason to refuse mail for good after it was started anew."""
    scene.two.say(keywords=("PIPELINING", "SIZE 2000"))
    assert scene.send("two").code == 250
    scene.two.down()
    scene.two.script = Script()
    scene.two.up()
    assert scene.send("two", EIGHT_BIT).code == 250
    assert scene.send("two", fresh() + b"text\r\n" * 500).code == 250


def test_no_smtputf8_is_a_clear_refusal(scene: Scene) -> None:
    scene.one.say(keywords=("8BITMIME",))
    with Client(scene.world, scene.gateway.host, scene.client) as client:
        client.ehlo()
        octets = "Subject: Grüße\r\n\r\n".encode()
        answer = client.send("a@sender.test", "plain@forward.test", octets, "SMTPUTF8")
        assert (answer.code, answer.text[:5]) == (550, "5.6.7"), answer
        assert client.send("a@sender.test", "plain@forward.test", MESSAGE, "SMTPUTF8").code == 250


def test_a_hop_with_a_smaller_size_limit(scene: Scene) -> None:
    scene.two.say(keywords=("SIZE 2000", "8BITMIME"))
    answer = scene.send("two", MESSAGE + b"x" * 70 + b"\r\n" + b"text\r\n" * 500)
    assert (answer.code, answer.text[:5]) == (552, "5.3.4"), answer
    assert scene.two.received == []


def test_a_hop_without_ehlo(scene: Scene) -> None:
    scene.two.say(keywords=())
    assert scene.send("two").code == 250
    assert scene.two.accepted[0].octets.endswith(b"\r\n\r\ntext\r\n")


def test_one_of_two_destinations_refuses(scene: Scene) -> None:
    """Nobody shows who the sender is, so it is not told: the owner decides about what is held."""
    scene.two.say(dot="550 5.7.1 not here")
    answer = scene.send("both")
    assert answer.code == 250, answer
    assert (len(scene.one.accepted), scene.two.accepted) == (1, [])
    (held,) = [one for one in scene.queue() if any(part["state"] == "held" for part in one["to"])]
    assert "not here" in held["to"][1]["reason"]
    assert scene.gateway.run("queue", "delete", held["id"], "--yes").status == 0


def test_what_one_of_two_destinations_puts_off_is_delivered_later(scene: Scene) -> None:
    scene.two.say(dot="451 4.7.1 greylisted")
    message = fresh()
    assert scene.send("both", message).code == 250
    assert (len(scene.one.accepted), len(scene.two.accepted)) == (1, 0)
    scene.two.say(dot="250 2.0.0 taken")
    scene.two.wait()
    wait_for(lambda: not scene.queue(), what="the queue is not empty")
    assert (len(scene.one.accepted), len(scene.two.accepted)) == (1, 1)
    assert scene.two.accepted[0].octets.endswith(message)


def test_a_slow_hop_and_the_senders_retry_make_one_copy(scene: Scene) -> None:
    go_on = threading.Event()
    scene.two.say(before_dot=lambda: go_on.wait(20))
    message = fresh()
    answer = scene.send("two", message)
    assert answer.code == 451, answer
    assert "has not answered in time" in answer.text
    go_on.set()
    scene.two.wait()
    assert scene.send("two", message).code == 250
    assert len(scene.two.accepted) == 1


def test_two_mailboxes_of_one_hop_share_a_transaction_or_not_but_get_one_each(scene: Scene) -> None:
    assert scene.send("many").code == 250
    recipients = sorted(name for message in scene.one.accepted for name in message.recipients)
    assert recipients == ["a@one.test", "b@one.test"]


def test_connections_are_reused(scene: Scene) -> None:
    for _ in range(5):  # to the domain with one host: of two, one that was down is asked last for a while
        assert scene.send("two").code == 250
    assert scene.two.connections == 1
