"""The third-party SPF suite through the real gateway: a connection from each case's own address, real DNS, real SMTP.

What the next hop reads in Authentication-Results is what counts. A scenario's cases share their zone and one gateway.
The address comes by the PROXY protocol, both versions in turn; in a network namespace the client really has it.
Cases whose words are no SMTP never come so far as to be checked: `UNSPEAKABLE` lists them with the command that is
refused.
"""

import contextlib
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import dns.exception
import dns.message
import pytest

from tests.auth.spf.zone import Case, cases, table
from tests.lab.client import Client, proxy_v1, proxy_v2
from tests.lab.findings import findings
from tests.lab.gateway import Gateway, Value
from tests.lab.hop import Hop
from tests.lab.world import Host, World, loopback_world

RULES = "[forward.test]\nme -> inbox@hop.test\n"
MESSAGE = b"From: somebody@author.test\r\nSubject: spf\r\n\r\ntext\r\n"
UNSPEAKABLE = {  # RFC 5321 4.1.1.1 and 4.1.2 forbid them; the checks never see such words
    "toolonglabel": "MAIL refused",  # a label of 64 octets
    "emptylabel": "MAIL refused",
    "nolocalpart": "MAIL refused",
    "invalid-hello-macro": "EHLO refused",  # a space in the name
}
SCENARIOS = 16
SAMPLE = ("PTR mechanism syntax", "A mechanism syntax", "IP6 mechanism syntax", "Macro expansion rules")


def scenarios() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    for case in cases():
        found.setdefault(case.scenario, []).append(case)
    return found


def parameters(names: Collection[str] = ()) -> list[Any]:
    try:
        return [pytest.param(name, id=name.replace(" ", "-")) for name in scenarios() if name in names or not names]
    except pytest.skip.Exception as reason:
        return [pytest.param("", id="none", marks=pytest.mark.skip(reason=str(reason)))]


def zone_answer(case: Case) -> Callable[[bytes], bytes | None]:
    """Give a name server's answers for the case's zone."""
    behaviour = table(case.zone)

    def answer(wire: bytes) -> bytes | None:
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        return next(iter(behaviour(query, "udp")), None)

    return answer


@dataclass
class Scene:
    """A gateway that serves one scenario. `connect` gives a client with an address of its own."""

    hop: Hop
    gateway: Gateway
    connect: Callable[[str], Client]

    def ask(self, case: Case) -> str:
        """Send a message as the case says; give the SPF result that the next hop reads, or the refused command."""
        self.hop.received.clear()
        local, at, domain = case.mail_from.rpartition("@")
        if not re.fullmatch(r"[A-Za-z0-9._+=&~-]*", local):
            local = f'"{local}"'
        with self.connect(case.host) as client:
            commands = {"EHLO": f"EHLO {case.helo}", "MAIL": f"MAIL FROM:<{local}{at}{domain}>"}
            for verb, line in {**commands, "RCPT": "RCPT TO:<me@forward.test>", "DATA": "DATA"}.items():
                answer = client.command(line)
                if answer.code // 100 == 5:
                    return f"{verb} refused"
                assert answer.code in (250, 354), answer
            client.write(MESSAGE + b".\r\n")
            answer = client.read()
            assert answer.code == 250, (case, answer)
        (received,) = self.hop.received
        return self._told(case, received.octets)

    def _told(self, case: Case, octets: bytes) -> str:
        spf = findings(octets).one("spf")
        (event,) = self.gateway.events("authenticated")[-1:]
        assert str(event["spf"]).split(" ")[0] == spf.result
        assert (spf.result == "pass") or spf.comment
        assert ("smtp.helo" in spf.properties) == (not case.mail_from)
        return spf.result


def differences(scene: Scene, asked: list[Case]) -> dict[str, tuple[str, str]]:
    """Ask all cases; give what did not come out as it should, as (found, expected)."""
    wrong = {}
    for case in asked:
        found = scene.ask(case)
        expected = (UNSPEAKABLE[case.name],) if case.name in UNSPEAKABLE else case.results
        if found not in expected:
            wrong[case.name] = (found, " or ".join(expected))
    return wrong


@contextlib.contextmanager
def scene(world: World, listens: list[Host], connect: Callable[[str], Client], *, proxy: bool) -> Iterator[Scene]:
    hop = world.host("hop.test")
    settings: dict[str, Value] = {"listen.proxy_protocol": proxy, "delivery.routes": {"hop.test": str(hop)}}
    settings["dns.timeout"] = "1500ms"
    with (
        Hop(world, hop) as taker,
        Gateway(world, listens[0], RULES, settings=settings, also=listens[1:]) as gateway,
    ):
        yield Scene(taker, gateway, connect)


def test_the_suite_is_complete() -> None:
    assert len(scenarios()) == SCENARIOS
    assert sum(map(len, scenarios().values())) == 203
    assert set(UNSPEAKABLE) <= {case.name for case in cases()}


@pytest.mark.parametrize("name", parameters())
def test_scenario(name: str) -> None:
    chosen = scenarios()[name]
    forms = [proxy_v1, proxy_v2]
    with loopback_world() as world:
        gate = world.host("mx.forward.test")

        def connect(address: str) -> Client:
            forms.reverse()
            return Client(world, gate, preface=forms[0](address))

        with scene(world, [gate], connect, proxy=True) as made:
            world.dns.stand_in(zone_answer(chosen[0]))
            assert differences(made, chosen) == {}


@pytest.mark.netns
@pytest.mark.parametrize("name", parameters(SAMPLE))
def test_from_the_very_address(namespace: World, name: str) -> None:
    world = namespace
    chosen = scenarios()[name]
    gates = [world.host("mx.forward.test"), world.host("mx6.forward.test", ipv6=True)]

    def connect(address: str) -> Client:
        mapped = getattr(ip_address(address), "ipv4_mapped", None)  # what a socket for both families would call IPv4
        visitor = world.visitor(str(mapped or address))
        return Client(world, gates[visitor.is_ipv6], visitor)

    with scene(world, gates, connect, proxy=False) as made:
        world.dns.stand_in(zone_answer(chosen[0]))
        assert differences(made, chosen) == {}
