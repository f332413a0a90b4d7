"""The corpus through the whole gateway, which signs and seals, to a next hop; and through two gateways in a row.

Of every message that arrives: (a) what stands below our lines are the octets that were sent; (b) each signature that
came with it verifies as it did before, to us and to dkimpy; (c) ours verify with dkimpy and libopendkim, and the ARC
chain with dkimpy; (d) DMARC at the next hop (`tests.lab.receiver`) is what the gateway's log has foreseen.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from forwarder.auth.arc.verify import ArcStatus
from forwarder.auth.dkim.verify import DkimStatus, verify
from forwarder.model.headers import split_header
from tests.auth.arc.suite import Case
from tests.auth.arc.suite import cases as arc_cases
from tests.auth.dkim.opendkim import LIBRARY
from tests.corpus.collection import ODD
from tests.corpus.odd import Odd, arriving, odd
from tests.corpus.signatures import records, signed_by_others
from tests.fakes import FakeResolver
from tests.lab.client import Client
from tests.lab.findings import ON_TOP, findings
from tests.lab.gateway import Gateway, ours_and_original
from tests.lab.hop import Hop, Received
from tests.lab.maildir import wait_for
from tests.lab.receiver import Good, Published, chain, dmarc, signatures
from tests.lab.world import Host, World, loopback_world
from tests.rewrite.judges import ed25519, opendkim, received, rsa, run
from tests.rewrite.test_sign import DKIMPY_REFUSES, OPENDKIM_REFUSES

FIRST = "[forward.test]\nodd -> inbox@hop.test\nboth -> odd@second.test\n"
SECOND = "[second.test]\nodd -> inbox@hop.test\n"
KEYS = {name: (rsa("s1", name), ed25519("e1", name)) for name in ("forward.test", "second.test")}


@dataclass
class Scene:
    """A sender, two gateways, the next hop of both, and what DNS holds."""

    world: World
    sender: Host
    first: Gateway
    hop: Hop
    published: Published
    _read: int = field(default=0)

    def send(self, octets: bytes, to: str = "odd", options: str = "") -> tuple[Received, dict[str, object]]:
        """Send a message that must arrive; give what did, and what the first gateway foresaw."""
        self.hop.received.clear()
        with Client(self.world, self.first.host, self.sender, timeout=60) as client:
            client.ehlo(self.sender.name)
            words = options or ("" if octets.isascii() else "BODY=8BITMIME")
            answer = client.send("odd@elsewhere.test", f"{to}@forward.test", octets, words)
        assert answer.code == 250, answer
        (one,) = self.hop.received
        return one, wait_for(self._foreseen, what="nothing was foreseen")

    def _foreseen(self) -> dict[str, object]:
        """Read on in the log, which is long."""
        with self.first.output.open("rb") as log:
            log.seek(self._read)
            lines = log.read().splitlines(keepends=True)
        for line in lines:
            if not line.endswith(b"\n"):
                break
            self._read += len(line)
            if b'"foreseen"' in line:
                found: dict[str, object] = json.loads(line)
                return found
        return {}

    def answers(self, octets: bytes) -> list[DkimStatus]:
        """Give our own verifier's answers, topmost signature first."""
        zone = {(name, "TXT"): [text] for name, text in self.published.texts.items()}
        return [each.status for each in run(verify(FakeResolver(zone), received(octets), int(time.time())))]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with loopback_world() as world:
        sender, published = world.host("mx.sender.test", "sender.test"), Published(world)
        gates = [world.host(f"mx.{name}", name) for name in KEYS]
        first, second = (Gateway(world, gate, rules) for gate, rules in zip(gates, (FIRST, SECOND), strict=True))
        for gateway, keys in zip((first, second), KEYS.values(), strict=True):
            published.give_keys(gateway, *keys)
        for name, text in {**records(), "_dmarc.sender.test": "v=DMARC1; p=none"}.items():
            published.add(name, text)
        with Hop(world, world.host("hop.test")) as hop, first, second:
            yield Scene(world, sender, first, hop, published)


_SLOW = 300_000  # octets from which dkimpy takes a second and more
ARRIVING = [one for one in ODD if not one.refusal and not one.by_default and one.name != "size-of-25000000"]
SIGNED = [odd(one.name, one.octets) for one in signed_by_others()]


def test_there_are_enough() -> None:
    assert len(ARRIVING) + len(SIGNED) >= 150


@pytest.mark.parametrize("one", [*ARRIVING, *SIGNED], ids=lambda one: one.name)
def test_through_the_gateway(scene: Scene, one: Odd) -> None:
    octets = arriving(one.octets)
    options = "BODY=8BITMIME SMTPUTF8" if one.utf8 else ""
    taken, foreseen = scene.send(octets, options=options)
    added = on_top(taken.octets, octets, 1)  # (a)
    own = KEYS["forward.test"]

    before, after = scene.answers(octets), scene.answers(taken.octets)  # (b)
    assert after == [DkimStatus.PASS] * 2 + before[: len(after) - 2]
    assert len(after) == min(len(before) + 2, 10)
    assert "broken" not in foreseen

    if readable_to_opendkim(one):  # (c)
        assert opendkim(taken.octets, own[0])
    if not readable_to_dkimpy(one):
        assert foreseen["dmarc"] == "fail"  # nothing that is not read could pass
        return
    theirs = signatures(octets, scene.published)
    assert signatures(taken.octets, scene.published) == [*(Good(key.domain, key.selector) for key in own), *theirs]
    assert (b"authentication-results" in added) == (one.name != "names-results")
    assert (b"arc-seal" in added) == (not has_broken_chain(octets))
    if b"arc-seal" in added:
        assert chain(taken.octets, scene.published) == "pass"

    there = dmarc(taken.octets, taken.sender, scene.published)  # (d)
    if one.name.startswith("length-and-more"):  # dkimpy does not tell that a part is not signed: we do not rely on it
        assert (foreseen["dmarc"], there) == ("fail", "pass")
    else:
        assert foreseen["dmarc"] == there, foreseen


@pytest.mark.parametrize("one", [*ARRIVING[::4], *SIGNED[::2]], ids=lambda one: one.name)
def test_through_two_gateways(scene: Scene, one: Odd) -> None:
    octets = arriving(one.octets)
    taken, _ = scene.send(octets, "both", "BODY=8BITMIME SMTPUTF8" if one.utf8 else "")
    on_top(taken.octets, octets, 2)
    count = len(scene.answers(octets))
    assert scene.answers(taken.octets)[4 : 4 + count] == scene.answers(octets)[:6]
    if not readable_to_dkimpy(one):
        return
    own = [Good(key.domain, key.selector) for name in ("second.test", "forward.test") for key in KEYS[name]]
    assert signatures(taken.octets, scene.published) == [*own, *signatures(octets, scene.published)]
    if not has_broken_chain(octets):
        assert chain(taken.octets, scene.published) == "pass"
        assert re.findall(rb"(?m)^ARC-Seal: i=([0-9]+)", taken.octets)[:2] == [b"2", b"1"]


def test_on_top_of_foreign_chains(scene: Scene) -> None:
    """The third-party suite's chains that hold: ours are on top of them, once and twice."""
    sound = [case for case in arc_cases() if case.status is ArcStatus.PASS and resolvable(case)]
    zones = {json.dumps(sorted(published_by(case).items())) for case in sound}
    assert len(sound) > 40 and len(zones) >= 1
    for case in sound:
        for name, text in published_by(case).items():
            scene.published.texts.pop(name, None)
            scene.published.add(name, text)
    for case in sound[::3]:
        for to, gateways in (("odd", 1), ("both", 2)):
            taken, _ = scene.send(case.message, to)
            on_top(taken.octets, case.message, gateways)
            sets = len(split_header(case.message).all(b"arc-seal"))
            assert findings(taken.octets).result("arc") == "pass", case.name
            assert re.search(rb"ARC-Seal: i=%d;" % (sets + gateways), taken.octets), case.name
            assert chain(taken.octets, scene.published) == chain(case.message, scene.published), case.name


def published_by(case: Case) -> dict[str, str]:
    return {name: texts[0] for (name, _), texts in case.zone.items() if texts}


def resolvable(case: Case) -> bool:
    """Whether its keys are those that most cases have."""
    return published_by(case) == published_by(arc_cases()[1])


def on_top(taken: bytes, octets: bytes, gateways: int) -> set[bytes]:
    """Check that what stands on top are whole lines of that many gateways of ours; give their names."""
    ours, _ = ours_and_original(taken, octets)
    header = split_header(ours)
    assert header.size == len(ours), ours
    names = [each.name for each in header.fields]
    assert names.count(b"received") == gateways
    assert set(names) <= {*ON_TOP, b"received"}
    return set(names)


def has_broken_chain(octets: bytes) -> bool:
    """Whether it came with one: those of the corpus are."""
    return bool(split_header(octets).all(b"arc-seal"))


def readable_to_dkimpy(one: Odd) -> bool:
    return one.name not in DKIMPY_REFUSES and len(one.octets) <= _SLOW


def readable_to_opendkim(one: Odd) -> bool:
    return LIBRARY is not None and one.name not in OPENDKIM_REFUSES
