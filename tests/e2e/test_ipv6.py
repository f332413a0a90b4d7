"""The same over IPv6: a client, the gateway and a real Postfix that have no other addresses."""

import pytest

from tests.lab.client import Client
from tests.lab.gateway import Gateway
from tests.lab.hop import Hop
from tests.lab.postfix import Postfix
from tests.lab.world import World

pytestmark = pytest.mark.netns

RULES = "[forward.test]\nme -> inbox@six.test\n"
MESSAGE = b"From: a@sender.test\r\nSubject: x\r\n\r\ntext\r\n"


def test_in_and_out_by_ipv6(namespace: World) -> None:
    gate, sink = namespace.host("mx.forward.test", ipv6=True), namespace.host("mx.six.test", "six.test", ipv6=True)
    source = namespace.host("client.test", ipv6=True)
    with Hop(namespace, sink) as hop, Gateway(namespace, gate, RULES) as gateway:
        with Client(namespace, gateway.host, source) as client:
            client.ehlo()
            assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
        octets = hop.wait()[0].octets
        assert f"Received: from client.test (client.test [IPv6:{source.address}])".encode() in octets
        assert octets.endswith(MESSAGE)


def test_both_families_on_one_gateway(namespace: World) -> None:
    four, six = namespace.host("mx.forward.test"), namespace.host("mx6.forward.test", ipv6=True)
    sink = namespace.host("mx.six.test", "six.test", ipv6=True)
    with Hop(namespace, sink) as hop, Gateway(namespace, four, RULES, also=[six]):
        for host in (four, six):
            with Client(namespace, host) as client:
                client.ehlo()
                assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
        assert len(hop.wait(2)) == 2


def test_a_destination_whose_ipv6_fails_is_reached_by_ipv4(namespace: World) -> None:
    gate, four = namespace.host("mx.forward.test"), namespace.host("mx.six.test", "six.test")
    namespace.dns.add("mx.six.test", "AAAA", "2001:db8:dead::1")
    settings = {"delivery.ip": "prefer-ipv6"}
    with Hop(namespace, four) as hop, Gateway(namespace, gate, RULES, settings=settings) as gateway:
        with Client(namespace, gateway.host) as client:
            client.ehlo()
            assert client.send("a@sender.test", "me@forward.test", MESSAGE).code == 250
        assert len(hop.wait()) == 1


@pytest.mark.postfix
def test_a_postfix_by_ipv6(postfix_world: World) -> None:
    gate = postfix_world.host("mx.forward.test", "forward.test", ipv6=True)
    one = postfix_world.host("mx.sender.test", "sender.test", ipv6=True)
    two = postfix_world.host("mx.six.test", "six.test", ipv6=True)
    with (
        Postfix(postfix_world, one, ["a@sender.test"]) as sender,
        Postfix(postfix_world, two, ["inbox@six.test"]) as receiver,
        Gateway(postfix_world, gate, RULES),
    ):
        text = MESSAGE.replace(b"\r\n", b"\n")
        sender.sendmail("a@sender.test", "me@forward.test", text)
        stored = receiver.mailbox("inbox@six.test").wait()[0]
        assert b"[IPv6:2001:db8::" in stored
        sender.wait_empty()
