"""Signing and what is foreseen, over real gateways: every policy by every way to pass, the second offer, the keys.

What the next hop makes of a message is said by dkimpy and OpenDMARC's library (`tests.lab.receiver`), not by us.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from forwarder.ops.control import call
from forwarder.rewrite.signing_key import SigningKey
from tests.corpus.signatures import by_any_tags, by_dkimpy, by_ed25519, records
from tests.e2e.queue_stage import Scene as QueueScene
from tests.e2e.queue_stage import Who, dsn
from tests.e2e.queue_stage import scene as queue_scene
from tests.e2e.test_processes import clients_of_each
from tests.lab.client import Answer, Client
from tests.lab.gateway import Gateway, Value, ours_and_original
from tests.lab.hop import Hop, Received
from tests.lab.receiver import Good, Published, author, chain, dmarc, signatures
from tests.lab.world import Host, World, loopback_world
from tests.rewrite.judges import ed25519, rsa

RULES = "[forward.test]\nme -> inbox@hop.test\ngoogle -> someone@gmail.com\n"
OURS = "forward.test"
RSA, EDWARDS = rsa("s1", OURS), ed25519("e1", OURS)


def letter(domain: str) -> bytes:
    return (
        f"From: Ann <ann@{domain}>\r\nTo: me@forward.test\r\nSubject: who\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
        f"Message-ID: <1@{domain}>\r\n\r\nText \r\n.dot\r\n\r\n"
    ).encode()


# What was foreseen is what comes


@dataclass(frozen=True, slots=True)
class Way:
    """How mail shows who sent it: whether it `passes` here, and that is `lost` on the way.

    `tags` are of the DMARC record; the author may be `below` the domain that has it.
    """

    passes: bool
    lost: bool = False
    spf: bool = False
    sign: Callable[[bytes, str], bytes] = lambda octets, _: octets
    tags: str = ""
    below: bool = False


def _aligned(octets: bytes, domain: str) -> bytes:
    return by_dkimpy(octets, domain=domain)


WAYS = {
    "dkim": Way(True, sign=_aligned),
    "dkim-strict": Way(True, sign=_aligned, tags="; adkim=s"),
    "dkim-of-the-domain-above": Way(True, sign=_aligned, below=True),
    "dkim-of-the-domain-above-strict": Way(False, sign=_aligned, tags="; adkim=s", below=True),
    "dkim-simple-and-spf": Way(True, spf=True, sign=lambda octets, domain: by_dkimpy(octets, "simple/simple", domain)),
    "dkim-by-ed25519": Way(True, sign=lambda octets, domain: by_ed25519(octets, "relaxed/simple", domain)),
    "dkim-that-names-our-lines": Way(
        True, sign=lambda octets, domain: by_any_tags(octets, d=domain, h="from:delivered-to:x-forwarded-for:date")
    ),
    "dkim-of-a-list": Way(False, sign=lambda octets, _: by_dkimpy(octets, domain="list.test")),
    "spf": Way(True, lost=True, spf=True),
    "spf-strict-and-dkim-of-a-list": Way(
        True, lost=True, spf=True, sign=lambda octets, _: by_dkimpy(octets, domain="list.test"), tags="; aspf=s"
    ),
    "dkim-with-a-part-unsigned": Way(
        True,
        lost=True,
        spf=True,
        sign=lambda octets, domain: by_dkimpy(octets, domain=domain, length=True) + b"more\r\n",
    ),
    "dkim-aligned-by-the-tree-walk-alone": Way(True, lost=True, sign=_aligned, below=True),
    "neither": Way(False),
}
POLICIES = ("", "none", "quarantine", "reject")
SUFFIXES = ("github.io", "netlify.app", "vercel.app", "herokuapp.com")  # in the list's private section
MODES: dict[str, dict[str, Value]] = {
    "never": {"rewrite.from": "never"},
    "when-needed": {},
    "always": {"rewrite.from": "always"},
    "report": {"authentication.dmarc": "report", "rewrite.from": "never"},
}


@dataclass
class Scene:
    """A sender, a gateway for each mode, and a next hop."""

    world: World
    sender: Host
    hop: Hop
    published: Published
    running: ExitStack
    gateways: dict[str, Gateway] = field(default_factory=dict)

    def gateway(self, mode: str) -> Gateway:
        if mode not in self.gateways:
            gateway = Gateway(self.world, self.world.host(f"mx.{mode}.test"), RULES, settings=MODES[mode])
            self.published.give_keys(gateway, RSA, EDWARDS)
            self.gateways[mode] = self.running.enter_context(gateway)
        return self.gateways[mode]

    def publish(self, way: str, policy: str) -> tuple[str, str]:
        """Publish what the way needs; give the author's domain and the one that signs."""
        how = WAYS[way]
        by_walk = way == "dkim-aligned-by-the-tree-walk-alone"
        domain = SUFFIXES[POLICIES.index(policy)] if by_walk else f"{way}-{policy or 'silent'}.test"
        name = f"who.{domain}" if how.below else domain
        if policy:
            self.published.add(f"_dmarc.{domain}", f"v=DMARC1; p={policy}{how.tags}")
            if by_walk:
                self.published.add(f"_dmarc.{name}", f"v=DMARC1; p={policy}{how.tags}")
        for selector in ("lab", "ed"):
            self.published.add(f"{selector}._domainkey.{domain}", records()[f"{selector}._domainkey.sender.test"])
        self.published.add(name, f"v=spf1 {f'ip4:{self.sender.address} ' if how.spf else ''}-all")
        return name, domain

    def send(self, mode: str, sender: str, octets: bytes, to: str = "me") -> Answer:
        self.hop.received.clear()
        with Client(self.world, self.gateway(mode).host, self.sender) as client:
            client.ehlo(self.sender.name)
            return client.send(sender, f"{to}@forward.test", octets)

    def foreseen(self, mode: str) -> dict[str, object]:
        return self.gateway(mode).events("foreseen")[-1]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with loopback_world() as world, Hop(world, world.host("hop.test")) as hop, ExitStack() as running:
        published = Published(world)
        for name, text in {**records(), f"_dmarc.{OURS}": "v=DMARC1; p=reject; adkim=s; aspf=s"}.items():
            published.add(name, text)
        yield Scene(world, world.host("mx.sender.test", "sender.test"), hop, published, running)


# Where nothing is refused here, only what would be is of interest.
CASES = [(way, mode) for way in WAYS for mode in MODES if mode != "report" or not WAYS[way].passes]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("way", "mode"), CASES)
def test_dmarc_is_what_was_foreseen(scene: Scene, way: str, policy: str, mode: str) -> None:
    how = WAYS[way]
    name, domain = scene.publish(way, policy)
    octets = how.sign(letter(name), domain)
    answer = scene.send(mode, f"ann@{name}" if how.spf else "ann@sender.test", octets)
    if policy == "reject" and not how.passes and mode != "report":
        assert (answer.code, scene.hop.received) == (550, []), answer
        return
    assert answer.code == 250, answer
    (taken,) = scene.hop.received
    foreseen = scene.foreseen(mode)
    expected = "none" if not policy else "pass" if how.passes and not how.lost else "fail"
    assert (foreseen["dmarc"], foreseen.get("author")) == (expected, name)
    needed = {"when-needed": ("quarantine", "reject"), "always": ("none", "quarantine", "reject")}.get(mode, ())
    rewritten = how.lost and policy in needed
    assert foreseen["action"] == ("rewrite" if rewritten else "forward"), foreseen

    if way == "dkim-with-a-part-unsigned" and policy:
        expected = "pass"  # whoever believes in l= takes it; we do not rely on that
    assert dmarc(octets, taken.sender, scene.published) == expected
    if not rewritten:
        ours_and_original(taken.octets, octets)
        assert author(taken.octets) == name
        assert dmarc(taken.octets, taken.sender, scene.published) == expected
    else:
        check_rewritten(scene, taken, name)
    assert chain(taken.octets, scene.published) == "pass"


def check_rewritten(scene: Scene, taken: Received, name: str) -> None:
    head = taken.octets.partition(b"\r\n\r\n")[0].decode()
    assert re.search(r'(?m)^From: "Ann via forward\.test" <me@forward\.test>\r$', head)
    assert f'\r\nReply-To: "Ann" <ann@{name}>\r\n' in head
    assert f"\r\nX-Original-From: Ann <ann@{name}>\r\n" in head
    assert author(taken.octets) == OURS
    assert Good(OURS, "s1") in signatures(taken.octets, scene.published)
    assert dmarc(taken.octets, taken.sender, scene.published) == "pass"
    kept = letter(name).partition(b"\r\n")[2]  # all below From
    assert kept in taken.octets


# The second offer

REFUSAL = (
    "550-5.7.26 Unauthenticated email from sender.test is not accepted due to\r\n"
    "550-5.7.26 domain's DMARC policy. Please contact the administrator of\r\n"
    "550 5.7.26 sender.test domain if this was a legitimate mail."
)


@pytest.fixture(scope="module")
def google(scene: Scene) -> Iterator[Hop]:
    scene.published.add("_dmarc.google-case.test", "v=DMARC1; p=reject")
    scene.published.add("lab._domainkey.google-case.test", records()["lab._domainkey.sender.test"])
    with Hop(scene.world, scene.world.host("gmail-smtp-in.l.google.com", "gmail.com")) as hop:
        yield hop


def test_what_google_refuses_by_dmarc_is_offered_once_more(scene: Scene, google: Hop) -> None:
    google.received.clear()
    replies = iter([REFUSAL, "250 2.0.0 OK"])
    google.say(before_dot=lambda: google.say(dot=next(replies)))
    octets = by_dkimpy(letter("google-case.test"), domain="google-case.test")
    answer = scene.send("when-needed", "ann@sender.test", octets, "google")
    assert answer.code == 250, answer
    first, second = google.received
    assert (first.accepted, second.accepted) == (False, True)
    ours_and_original(first.octets, octets)
    assert scene.foreseen("when-needed")["dmarc"] == "pass"
    assert b'\r\nFrom: "Ann via forward.test" <google@forward.test>\r\n' in second.octets
    assert dmarc(second.octets, second.sender, scene.published) == "pass"
    assert chain(second.octets, scene.published) == "pass"
    assert scene.gateway("when-needed").wait_event("rewritten")


@pytest.mark.parametrize(("mode", "offers"), [("when-needed", 2), ("never", 1)])
def test_and_not_a_third_time(scene: Scene, google: Hop, mode: str, offers: int) -> None:
    google.received.clear()
    google.say(before_dot=lambda: None, dot=REFUSAL)
    octets = by_dkimpy(letter("google-case.test"), domain="google-case.test")
    answer = scene.send(mode, "ann@sender.test", octets, "google")
    assert (answer.code, answer.text[:6]) == (550, "5.7.26"), answer
    assert len(google.received) == offers


# Our own messages


@pytest.fixture(scope="module")
def queue() -> Iterator[tuple[QueueScene, Published]]:
    with queue_scene(intervals={"expire": 1.5}, runner={"notice_after": 0.0, "notice_every": 0.0}) as made:
        published = Published(made.world)
        published.give_keys(made.gateway, RSA, EDWARDS)
        published.add("_dmarc.forward.test", "v=DMARC1; p=reject")
        assert call(made.gateway.folder / "run" / "control.sock", "keys.reload")["ok"]
        yield made, published


@pytest.mark.parametrize("who", [Who.SPF, Who.NOBODY])
def test_notifications_and_notices_are_signed(queue: tuple[QueueScene, Published], who: Who) -> None:
    stage, published = queue
    stage.begin()
    place = stage.place()
    place.e.say(dot="451 4.3.0 come back later")
    assert stage.send(who, place.both).code == 250
    (told,) = (stage.home if who is Who.SPF else stage.office).wait()
    assert told.sender == ""
    assert signatures(told.octets, published) == [Good(OURS, "s1")]
    assert author(told.octets) == "mx.forward.test"
    assert dmarc(told.octets, "", published) == "pass"
    if who is Who.SPF:
        assert dsn(told)
    stage.ask(verb="delete", all=True)


# Keys

TWO: dict[str, Value] = {"workers": 2}
PLAIN = b"From: a@sender.test\r\nSubject: x\r\n\r\ntext\r\n"


@dataclass
class Running:
    """A gateway with two workers and one RSA key."""

    world: World
    gateway: Gateway
    hop: Hop
    published: Published

    def used(self) -> set[tuple[Good | None, ...]]:
        """Send by both workers; give what dkimpy says of the signatures."""
        self.hop.received.clear()
        with clients_of_each(self.world, self.gateway, self.gateway.host) as clients:
            for client in clients.values():
                assert client.send("a@sender.test", "me@forward.test", PLAIN).code == 250
        assert len(self.hop.received) == 2
        assert all(chain(each.octets, self.published) in ("pass", "none") for each in self.hop.received)
        return {tuple(signatures(each.octets, self.published)) for each in self.hop.received}

    def reload(self) -> dict[str, object]:
        return dict(call(self.gateway.folder / "run" / "control.sock", "keys.reload"))


@pytest.fixture
def running(loopback: World) -> Iterator[Running]:
    yield from _running(loopback, RSA)


@pytest.fixture
def keyless(loopback: World) -> Iterator[Running]:
    yield from _running(loopback)


def _running(world: World, *keys: SigningKey) -> Iterator[Running]:
    gateway = Gateway(world, world.host("mx.forward.test"), RULES, settings=TWO)
    published = Published(world)
    published.give_keys(gateway, *keys)
    with Hop(world, world.host("hop.test")) as hop, gateway:
        yield Running(world, gateway, hop, published)


def test_keys_are_rotated_under_way(running: Running) -> None:
    gateway, old = running.gateway, {(Good(OURS, "s1"),)}
    assert running.used() == old
    made = gateway.run("keys", "rotate", "--yes")
    assert made.status == 0, made.output
    found = re.search(r"(s[0-9]+)\._domainkey\.forward\.test\.\s+TXT\s+(.+)", made.output)
    assert found is not None, made.output
    assert running.used() == old
    early = gateway.run("keys", "rotate", "--yes")
    assert (early.status, "does not sign yet" in early.output) == (1, True), early.output
    assert running.used() == old
    running.published.add(f"{found[1]}._domainkey.forward.test", "".join(re.findall(r'"([^"]*)"', found[2])))
    switched = gateway.run("keys", "rotate", "--yes")
    assert (switched.status, "has read its keys again" in switched.output) == (0, True), switched.output
    assert running.used() == {(Good(OURS, found[1]),)}
    assert gateway.events("reload")[-1]["what"] == "keys"


def test_bad_keys_leave_the_old_ones_in_force(running: Running) -> None:
    place = running.gateway.folder / "state" / "keys" / OURS / "s1.pem"
    good = place.read_bytes()
    for octets, mode, why in ((b"no key", 0o600, "s1.pem"), (good, 0o644, "s1.pem"), (good[:-80], 0o600, "s1.pem")):
        place.write_bytes(octets)
        place.chmod(mode)
        answer = running.reload()
        assert not answer["ok"]
        assert why in str(answer["problems"])
        assert running.gateway.events("reload")[-1]["outcome"] == "refused"
        assert running.used() == {(Good(OURS, "s1"),)}
    place.chmod(0o600)
    place.write_bytes(good)
    assert running.reload()["ok"]


def test_without_keys_it_forwards_unsigned_and_says_so(keyless: Running) -> None:
    assert keyless.used() == {()}
    told = [str(event["text"]) for event in keyless.gateway.events("alert") if event.get("component") == "keys"]
    assert len(told) == 1
    assert "nothing is signed" in told[0] and "forwarder keys generate" in told[0]
    keyless.published.give_keys(keyless.gateway, RSA, EDWARDS)
    keyless.gateway.reread()
    keyless.gateway.wait_event("reload")
    assert keyless.used() == {(Good(OURS, "s1"), Good(OURS, "e1"))}
