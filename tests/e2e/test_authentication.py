"""Who sent it: SPF, DKIM, DMARC and ARC of real connections, as the sender is answered and as the next hop reads it.

Every test publishes names of its own in the lab's DNS, as the gateways keep what they have asked for.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import dkim
import pytest

from deploy.demo.zone import Trouble
from forwarder.session.examination import DNS_SECONDS
from tests.auth.arc import sealer
from tests.auth.dkim import signer
from tests.corpus.signed import CANONICAL, Key, make_key
from tests.lab.client import Answer, Client, stuff
from tests.lab.findings import Findings, findings
from tests.lab.gateway import Gateway, Value, ours_and_original
from tests.lab.hop import Hop, Received
from tests.lab.world import Host, World, loopback_world

RULES = "[forward.test]\nme -> inbox@hop.test\n"
SELECTOR = "lab"
BODY = b"Text  with \t spaces \r\n\r\n.dot\r\n\r\n\r\n"

SETTINGS: dict[str, dict[str, Value]] = {
    "enforce": {},
    "any": {"message.from": "any"},
    "report": {"authentication.dmarc": "report"},
    "off": {"authentication.dmarc": "off"},
    "proof": {"authentication.unauthenticated": "reject"},
    "trusting": {"authentication.trusted_arc_sealers": ["relay.test"]},
    "blind": {
        "authentication.spf": False,
        "authentication.dkim": False,
        "authentication.arc": False,
        "authentication.dmarc": "off",
    },
}


def message(author: str, body: bytes = BODY, more: bytes = b"") -> bytes:
    return (
        more
        + f"From: Author <author@{author}>\r\nTo: me@forward.test\r\nSubject: who\r\n"
        f"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@{author}>\r\n\r\n".encode()
        + body
    )


@dataclass
class Scene:
    """A sender, gateways that differ in their settings, and a next hop."""

    world: World
    sender: Host
    hop: Hop
    key: Key
    running: ExitStack
    gateways: dict[str, Gateway] = field(default_factory=dict)

    def gateway(self, name: str) -> Gateway:
        """Give the gateway with these settings; it is started when it is first asked for."""
        if name not in self.gateways:
            host = self.world.host(f"mx.{name}.test")
            gateway = Gateway(self.world, host, RULES, settings=SETTINGS[name])
            self.gateways[name] = self.running.enter_context(gateway)
        return self.gateways[name]

    def publish(self, domain: str, *, spf: bool = False, dmarc: str = "", key: bool = False) -> str:
        """Publish what a domain says; `spf` lets our sender's address send for it. Gives the domain."""
        dns = self.world.dns
        if spf:
            dns.add(domain, "TXT", f"v=spf1 ip4:{self.sender.address} -all")
        if dmarc:
            dns.add(f"_dmarc.{domain}", "TXT", dmarc)
        if key:
            dns.add(f"{SELECTOR}._domainkey.{domain}", "TXT", self.key.record)
        return domain

    def sign(self, octets: bytes, domain: str, canonical: str = "relaxed/relaxed", **options: object) -> bytes:
        """Sign by dkimpy for a domain."""
        head, body = (part.encode() for part in canonical.split("/"))
        made = dkim.sign(
            octets, SELECTOR.encode(), domain.encode(), self.key.private, canonicalize=(head, body), **options
        )
        return bytes(made) + octets

    def send(self, octets: bytes, sender: str, gateway: str = "enforce", options: str = "") -> Answer:
        """Send one message over a connection of its own."""
        self.hop.received.clear()
        with Client(self.world, self.gateway(gateway).host, self.sender, timeout=60) as client:
            client.ehlo(self.sender.name)
            words = options or ("" if octets.isascii() else "BODY=8BITMIME")
            return client.send(sender, "me@forward.test", octets, words)

    def found(self, octets: bytes, sender: str, gateway: str = "enforce", options: str = "") -> Findings:
        """Send a message that must arrive as it is; give what the next hop reads."""
        answer = self.send(octets, sender, gateway, options)
        assert answer.code == 250, answer
        received = self.taken()
        ours_and_original(received.octets, octets)
        return findings(received.octets)

    def taken(self) -> Received:
        (received,) = self.hop.received
        return received

    def event(self, gateway: str = "enforce") -> dict[str, object]:
        """Give the last event `authenticated`."""
        return self.gateway(gateway).events("authenticated")[-1]


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with loopback_world() as world, Hop(world, world.host("hop.test")) as hop, ExitStack() as running:
        yield Scene(world, world.host("mx.sender.test", "sender.test"), hop, make_key(), running)


# DKIM


@pytest.mark.parametrize("canonical", CANONICAL)
def test_signatures_by_dkimpy(scene: Scene, canonical: str) -> None:
    domain = scene.publish(f"{canonical.replace('/', '-')}.test", key=True)
    octets = scene.sign(message(domain), domain, canonical)
    clause = scene.found(octets, "a@sender.test").one("dkim")
    assert (clause.result, clause.comment) == ("pass", "")
    written = re.search(rb"\sb=([^;]+)", octets.partition(b"From:")[0])
    assert written is not None
    signature = re.sub(rb"\s", b"", written[1]).decode()
    begin = clause.properties.pop("header.b")
    assert len(begin) >= 8 and signature.startswith(begin)  # RFC 6008 4
    assert clause.properties == {
        "header.d": domain,
        "header.i": f"@{domain}",
        "header.s": SELECTOR,
        "header.a": "rsa-sha256",
    }
    changed = octets.replace(b"Text", b"Test")
    clause = scene.found(changed, "a@sender.test").one("dkim")
    assert (clause.result, clause.comment) == ("fail", "the body was changed")
    assert scene.found(octets.replace(b": who", b": you"), "a@sender.test").result("dkim") == "fail"


def test_a_signature_of_a_part_of_the_body(scene: Scene) -> None:
    domain = scene.publish("part.test", key=True, dmarc="v=DMARC1; p=reject")
    octets = scene.sign(message(domain), domain, "relaxed/simple", length=True)
    assert scene.found(octets, "a@sender.test").result("dmarc") == "pass"
    assert scene.send(octets + b"appended\r\n", "a@sender.test").code == 550
    clause = scene.found(octets + b"appended\r\n", "a@sender.test", "report").one("dkim")
    assert (clause.result, "body" in clause.comment) == ("pass", True)


def test_an_identity_below_the_domain(scene: Scene) -> None:
    domain = scene.publish("above.test", key=True)
    signed = scene.sign(message(domain), domain, identity=f"me@below.{domain}".encode())
    clause = scene.found(signed, "a@sender.test").one("dkim")
    assert (clause.result, clause.properties["header.i"]) == ("pass", f"me@below.{domain}")


def test_ed25519(scene: Scene) -> None:
    key = signer.ed25519_key()
    scene.world.dns.add("lab._domainkey.ed.test", "TXT", key.record)
    clause = scene.found(signer.sign(message("ed.test"), key, d="ed.test", t=None), "a@sender.test").one("dkim")
    assert (clause.result, clause.properties["header.a"]) == ("pass", "ed25519-sha256")


def test_keys_that_cannot_be_had(scene: Scene) -> None:
    for domain, trouble, result in (
        ("nokey.test", None, "permerror"),
        ("failing.test", Trouble.SERVFAIL, "temperror"),
        ("silent.test", Trouble.SILENT, "temperror"),
    ):
        scene.world.dns.trouble(f"{SELECTOR}._domainkey.{domain}", trouble)
        clause = scene.found(scene.sign(message(domain), domain), "a@sender.test").one("dkim")
        assert (clause.result, clause.properties["header.d"]) == (result, domain)
        assert clause.comment


def test_129_signatures(scene: Scene) -> None:
    domain = scene.publish("many.test", key=True, dmarc="v=DMARC1; p=reject")
    octets = scene.sign(message(domain), domain)
    for number in range(128):
        octets = signer.sign(octets, d=f"other{number}.test", t=None)
    before = len(scene.world.dns.asked)
    found = scene.found(octets, "a@sender.test")
    clauses = found.all("dkim")
    assert len(clauses) <= 10
    assert [clause.result for clause in clauses if clause.properties["header.d"] == domain] == ["pass"]
    assert found.result("dmarc") == "pass"
    keys = {name for name, _ in scene.world.dns.asked[before:] if "_domainkey" in name}
    assert len(keys) <= 10


# DMARC

POLICIES = ("none", "quarantine", "reject")


@pytest.mark.parametrize("aligned", ["spf", "dkim", "neither", "others"])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["enforce", "report", "off"])
def test_policies(scene: Scene, mode: str, policy: str, aligned: str) -> None:
    domain = scene.publish(
        f"{aligned}-{policy}-{mode}.test", spf=aligned == "spf", key=aligned == "dkim", dmarc=f"v=DMARC1; p={policy}"
    )
    octets, sender = message(domain), f"a@{domain}"
    if aligned == "dkim":
        octets, sender = scene.sign(octets, domain), "a@sender.test"
    if aligned == "others":  # somebody else's SPF and signature pass
        other = scene.publish(f"other-{policy}-{mode}.test", spf=True, key=True)
        octets, sender = scene.sign(octets, other), f"a@{other}"
    passes = aligned in ("spf", "dkim")
    if (mode, policy, passes) == ("enforce", "reject", False):
        answer = scene.send(octets, sender)
        assert (answer.code, answer.text[:6]) == (550, "5.7.1 "), answer
        assert domain in answer.text
        assert scene.hop.received == []
        assert (scene.event()["dmarc"], scene.event()["disposition"]) == ("fail", "reject")
        return
    clauses = scene.found(octets, sender, mode).all("dmarc")
    if mode == "off":
        assert clauses == []
        return
    (clause,) = clauses
    marked = (mode, policy) == ("enforce", "quarantine")
    disposition = "pass" if passes else "quarantine" if marked else "none"
    assert clause.result == ("pass" if passes else "fail")
    assert clause.properties == {"header.from": domain, "policy.dmarc": policy}
    assert clause.comment == f"p={policy} dis={disposition}"


def test_a_subdomain_under_relaxed_and_strict_alignment(scene: Scene) -> None:
    scene.publish("relaxed.test", dmarc="v=DMARC1; p=reject")
    scene.publish("strict.test", dmarc="v=DMARC1; p=reject; aspf=s")
    for domain, code in (("relaxed.test", 250), ("strict.test", 550)):
        bounces = scene.publish(f"bounces.{domain}", spf=True)
        assert scene.send(message(domain), f"a@{bounces}").code == code


@pytest.mark.parametrize("trouble", [Trouble.SERVFAIL, Trouble.SILENT], ids=lambda trouble: trouble.name.lower())
def test_dns_trouble_is_temporary(scene: Scene, trouble: Trouble) -> None:
    word = trouble.name.lower()
    dns = scene.world.dns
    policy, sender, key = f"{word}-policy.test", f"{word}-sender.test", f"{word}-key.test"
    dns.trouble(f"_dmarc.{policy}", trouble)
    dns.trouble(scene.publish(sender, dmarc="v=DMARC1; p=reject"), trouble)
    dns.trouble(f"{SELECTOR}._domainkey.{scene.publish(key, dmarc='v=DMARC1; p=reject')}", trouble)
    for domain, octets in (
        (policy, message(policy)),
        (sender, message(sender)),
        (key, scene.sign(message(key), key)),
    ):
        answer = scene.send(octets, f"a@{domain}")
        assert (answer.code, answer.text[:6]) == (451, "4.4.3 "), answer
        assert domain in answer.text
        assert scene.hop.received == []
        assert scene.event()["dmarc"] == "temperror"


def test_dns_trouble_matters_only_where_refusal_is_possible(scene: Scene) -> None:
    domain = scene.publish("lenient.test", dmarc="v=DMARC1; p=none")
    scene.world.dns.trouble(f"{SELECTOR}._domainkey.{domain}", Trouble.SERVFAIL)
    found = scene.found(scene.sign(message(domain), domain), "a@sender.test")
    assert (found.result("dkim"), found.result("dmarc")) == ("temperror", "temperror")
    passing = scene.publish("passing.test", spf=True, dmarc="v=DMARC1; p=reject")
    scene.world.dns.trouble(f"{SELECTOR}._domainkey.{passing}", Trouble.SERVFAIL)
    found = scene.found(scene.sign(message(passing), passing), f"a@{passing}")
    assert (found.result("dkim"), found.result("dmarc")) == ("temperror", "pass")


def test_several_authors(scene: Scene) -> None:
    strict = scene.publish("two-strict.test", spf=True, dmarc="v=DMARC1; p=reject")
    twice = message("two-plain.test", more=f"From: author@{strict}\r\n".encode())
    for gateway, why in (("enforce", "as RFC 5322 3.6 wants it"), ("any", "for certain whom it is from")):
        answer = scene.send(twice, f"a@{strict}", gateway)
        assert (answer.code, answer.text[:6], why in answer.text) == (550, "5.7.1 ", True), answer
    inone = message(strict).replace(b"From: Author", b"From: author@two-plain.test, Author")
    assert scene.send(inone, f"a@{strict}").code == 550
    plain = message("two-other.test", more=b"From: author@two-plain.test\r\n")
    assert scene.send(plain, "a@sender.test").code == 550
    assert scene.found(plain, "a@sender.test", "any").result("dmarc") == "permerror"


def test_no_author(scene: Scene) -> None:
    octets = re.sub(rb"From: .*?\r\n", b"", message("x.test"), count=1)
    clause = scene.found(octets, "a@sender.test").one("dmarc")
    assert (clause.result, clause.properties) == ("permerror", {})
    assert clause.comment
    assert scene.found(octets, "").result("dmarc") == "permerror"


def test_the_null_sender_is_its_helo(scene: Scene) -> None:
    domain = scene.sender.name
    octets = message(domain)
    found = scene.found(octets, "").one("spf")
    assert (found.result, found.properties) == ("none", {"smtp.helo": domain})
    with Client(scene.world, scene.gateway("enforce").host, scene.sender) as client:
        name = scene.publish("mx.bounces.test", spf=True, dmarc="v=DMARC1; p=reject")
        client.ehlo(name)
        scene.hop.received.clear()
        assert client.send("", "me@forward.test", message(name)).code == 250
        assert scene.taken().sender == ""
        told = findings(scene.taken().octets)
        assert (told.result("spf"), told.one("spf").properties) == ("pass", {"smtp.helo": name})
        assert told.result("dmarc") == "pass"
        other = scene.publish("mx.forged.test", dmarc="v=DMARC1; p=reject")
        assert client.send("", "me@forward.test", message(other)).code == 550


def test_names_beyond_ascii(scene: Scene) -> None:
    scene.publish("xn--bcher-kva.test", spf=True, dmarc="v=DMARC1; p=reject")
    octets = message("bücher.test")
    found = scene.found(octets, "grüße@bücher.test", options="SMTPUTF8 BODY=8BITMIME")
    assert found.one("dmarc").properties["header.from"] == "xn--bcher-kva.test"
    assert found.one("spf").result == found.result("dmarc") == "pass"
    assert scene.send(octets, "a@sender.test", options="SMTPUTF8 BODY=8BITMIME").code == 550


def test_our_own_domain_from_outside_is_judged_like_any_other(scene: Scene) -> None:
    scene.publish("forward.test", dmarc="v=DMARC1; p=reject")
    assert scene.send(message("forward.test"), "me@forward.test").code == 550


def test_a_slow_sender_is_judged_like_a_quick_one(scene: Scene) -> None:
    """What counts is the time that DNS takes, not the sender."""
    domain = scene.publish("slow.test", key=True, dmarc="v=DMARC1; p=reject")
    wire = stuff(scene.sign(message(domain), domain))
    with Client(scene.world, scene.gateway("enforce").host, scene.sender, timeout=60) as client:
        client.ehlo()
        for line in ("MAIL FROM:<a@sender.test>", "RCPT TO:<me@forward.test>", "DATA"):
            assert client.command(line).code in (250, 354)
        client.write(wire[:-30])
        time.sleep(DNS_SECONDS + 1)
        client.write(wire[-30:])
        assert client.read().code == 250


# What the operator asks for


def test_proof_is_asked_for(scene: Scene) -> None:
    bare, spf = "bare.test", scene.publish("by-spf.test", spf=True)
    signed = scene.publish("by-dkim.test", key=True)
    answer = scene.send(message(bare), f"a@{bare}", "proof")
    assert (answer.code, answer.text[:7]) == (550, "5.7.26 ")
    assert scene.hop.received == []
    assert scene.event("proof")["spf"]
    assert scene.found(message(bare), f"a@{spf}", "proof").result("spf") == "pass"
    assert scene.found(scene.sign(message(bare), signed), f"a@{bare}", "proof").result("dkim") == "pass"
    broken = scene.sign(message(bare), signed) + b"more\r\n"
    assert scene.send(broken, f"a@{bare}", "proof").code == 550
    assert scene.send(message(bare), "", "proof").code == 550
    scene.world.dns.trouble("undecided.test", Trouble.SERVFAIL)
    answer = scene.send(message(bare), "a@undecided.test", "proof")
    assert (answer.code, answer.text[:7]) == (451, "4.7.26 ")
    assert scene.found(message(bare), f"a@{bare}").result("spf") == "none"


def test_checks_that_are_switched_off_say_nothing(scene: Scene) -> None:
    domain = scene.publish("unseen.test", key=True, dmarc="v=DMARC1; p=reject")
    found = scene.found(scene.sign(message(domain), domain), f"a@{domain}", "blind")
    assert [clause.method for clause in found.clauses] == ["iprev"]
    assert {"spf", "dkim", "arc", "dmarc"}.isdisjoint(scene.event("blind"))


# Trusted sealers


def sealed(
    octets: bytes, results: str, domain: str = "relay.test", instance: int = 1, names: str = "from:to:subject"
) -> bytes:
    tags = {"d": domain, "t": None}
    results = f"i={instance}; {domain}; {results}"
    return sealer.seal(octets, results=results, signature={**tags, "h": names}, cover=tags)


@pytest.fixture(scope="module")
def author(scene: Scene) -> str:
    """Give a domain whose mail nothing here can authenticate."""
    for domain in ("relay.test", "stranger.test"):
        scene.world.dns.add(f"{sealer.SELECTOR}._domainkey.{domain}", "TXT", signer.rsa_key().record)
    return scene.publish("sealed.test", dmarc="v=DMARC1; p=reject")


def test_a_trusted_sealer_vouches(scene: Scene, author: str) -> None:
    octets = sealed(message(author), f"dmarc=pass header.from={author}")
    found = scene.found(octets, "a@relay.test", "trusting")
    assert (found.result("arc"), found.result("dmarc")) == ("pass", "fail")
    assert found.one("dmarc").comment == "p=reject dis=none"
    event = scene.event("trusting")
    assert (event["disposition"], "relay.test" in str(event["override"])) == ("none", True)
    assert scene.send(octets, "a@relay.test", "enforce").code == 550


NOT_VOUCHED: dict[str, Callable[[bytes, str], bytes]] = {
    "it says fail": lambda octets, by: sealed(octets, f"dmarc=fail header.from={by}"),
    "it says nothing": lambda octets, by: sealed(octets, "spf=pass smtp.mailfrom=a@b.test"),
    "only in a comment": lambda octets, by: sealed(octets, f"spf=fail (; dmarc=pass header.from={by})"),
    "only as a reason": lambda octets, by: sealed(octets, f'spf=fail reason="; dmarc=pass header.from={by}"'),
    "by a stranger": lambda octets, by: sealed(octets, f"dmarc=pass header.from={by}", "stranger.test"),
    "a stranger came after": lambda octets, by: sealed(
        sealed(octets, f"dmarc=pass header.from={by}"), "dmarc=pass", "stranger.test", 2
    ),
    "the body was changed": lambda octets, by: sealed(octets, f"dmarc=pass header.from={by}") + b"more\r\n",
    "the sender was changed": lambda octets, by: sealed(octets, "dmarc=pass").replace(b"Author", b"Mallory"),
    "the sender is not signed": lambda octets, by: sealed(octets, f"dmarc=pass header.from={by}", names="to:subject"),
    "the results were changed": lambda octets, by: sealed(octets, "dmarc=fail").replace(b"dmarc=fail", b"dmarc=pass"),
    "not sealed": lambda octets, by: b"ARC-Authentication-Results: i=1; relay.test; dmarc=pass\r\n" + octets,
}


@pytest.mark.parametrize("why", NOT_VOUCHED)
def test_nobody_vouches(scene: Scene, author: str, why: str) -> None:
    octets = NOT_VOUCHED[why](message(author), author)
    answer = scene.send(octets, "a@relay.test", "trusting")
    assert (answer.code, answer.text[:6]) == (550, "5.7.1 "), answer
    assert scene.hop.received == []


# Authentication-Results

FORGED = {
    "plain": b"Authentication-Results: mx.enforce.test; dmarc=pass\r\n",
    "upper case": b"AUTHENTICATION-RESULTS: MX.ENFORCE.TEST; dmarc=pass\r\n",
    "no space": b"authentication-results:mx.enforce.test;dmarc=pass\r\n",
    "folded": b"Authentication-Results:\r\n\t mx.enforce.test\r\n ;\r\n dmarc=pass\r\n header.from=x.test\r\n",
    "comment": b"Authentication-Results: (a (b) \\) c) mx.enforce.test (d); dmarc=pass\r\n",
    "version": b"Authentication-Results: mx.enforce.test 2; dmarc=pass\r\n",
    "dot": b"Authentication-Results: mx.enforce.test.; dmarc=pass\r\n",
    "quoted": b'Authentication-Results: "mx.enforce.test"; dmarc=pass\r\n',
    "nothing": b"Authentication-Results: mx.enforce.test; none\r\n",
    "no clauses": b"Authentication-Results: mx.enforce.test\r\n",
    "space before the colon": b"Authentication-Results : mx.enforce.test; dmarc=pass\r\n",
}
FOREIGN = (
    b"Authentication-Results: mx.enforce.test.other.test; dmarc=pass\r\n",
    b"Authentication-Results: other.test; dmarc=pass (mx.enforce.test)\r\n",
    b"Authentication-Results:  other.test;\r\n\tdmarc=pass  header.from=mx.enforce.test\r\n",
    b"X-Authentication-Results: mx.enforce.test; dmarc=pass\r\n",
    b"ARC-Authentication-Results: i=1; mx.enforce.test; dmarc=pass\r\n",
)


def ours(octets: bytes) -> Sequence[bytes]:
    """Give the fields of that name that name us, as a careless reader would find them."""
    head = octets.partition(b"\r\n\r\n")[0] + b"\r\n"
    fields = re.findall(rb"(?im)^authentication-results\s*:(?:.*\r\n)(?:[ \t].*\r\n)*", head)
    return [each for each in fields if re.search(rb"(?i):[^;]*\bmx\.enforce\.test(?!\.other)", each)]


@pytest.mark.parametrize("kind", FORGED)
def test_forged_results_do_not_get_through(scene: Scene, kind: str) -> None:
    plain = message("plain.test")
    head, _, body = plain.partition(b"\r\n\r\n")
    forged = FORGED[kind]
    for octets in (forged + plain, head + b"\r\n" + forged + b"\r\n" + body, forged * 3 + plain):
        assert scene.send(octets, "a@sender.test").code == 250
        received = scene.taken().octets
        ours_and_original(received, plain)
        assert findings(received).authserv_id == "mx.enforce.test"
        assert len(ours(received)) == 1


def test_forged_results_in_a_large_message(scene: Scene) -> None:
    """Also where the content is longer than what is kept in memory."""
    plain = message("plain.test", b"0123456789 \t .\r\n.\r\n" * 200_000)
    assert scene.send(FORGED["folded"] + plain, "a@sender.test").code == 250
    received = scene.taken().octets
    ours_and_original(received, plain)
    assert len(ours(received)) == 1


def test_results_of_others_stay(scene: Scene) -> None:
    octets = message("plain.test", more=b"".join(FOREIGN))
    assert scene.found(octets, "a@sender.test").authserv_id == "mx.enforce.test"


def test_what_looks_like_results_in_the_body_stays(scene: Scene) -> None:
    octets = message("plain.test", body=FORGED["plain"] + b"\r\n" + FORGED["folded"])
    scene.found(octets, "a@sender.test")


def test_forged_and_foreign_ones_mixed(scene: Scene) -> None:
    rest = message("plain.test").partition(b"\r\n")[2]
    pieces = [each for pair in zip(FORGED.values(), FOREIGN * 3, strict=False) for each in pair]
    kept = b"".join(each for each in pieces if each in FOREIGN)
    assert scene.send(b"".join(pieces) + b"From: a@plain.test\r\n" + rest, "a@sender.test").code == 250
    ours_and_original(scene.taken().octets, kept + b"From: a@plain.test\r\n" + rest)


def test_a_signature_that_does_not_cover_the_forged_one_survives(scene: Scene) -> None:
    domain = scene.publish("survives.test", key=True)
    headers = [b"from", b"to", b"subject"]
    signed = scene.sign(message(domain), domain, "simple/simple", include_headers=headers)
    assert scene.send(FORGED["plain"] + signed, "a@sender.test").code == 250
    received = scene.taken().octets
    ours_and_original(received, signed)
    assert findings(received).result("dkim") == "pass"

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        return scene.key.record.encode()

    assert dkim.verify(received, dnsfunc=look_up)


# The log


def test_one_event_for_each_message(scene: Scene) -> None:
    gateway = scene.gateway("enforce")
    refused = scene.publish("logged.test", dmarc="v=DMARC1; p=reject")
    before = len(gateway.events("authenticated"))
    with Client(scene.world, gateway.host, scene.sender) as client:
        client.ehlo()
        for domain in ("one.test", refused, "two.test"):
            client.send("a@sender.test", "me@forward.test", message(domain))
        answer = client.send("a@sender.test", "me@forward.test", message("one.test", b"\0\r\n"))
        assert answer.text.startswith("5.6.0")  # nothing to check
    events = gateway.wait_event("authenticated", before + 3)[before:]
    wanted: Mapping[str, str] = {"spf": "none", "dkim": "none", "arc": "none", "iprev": "pass"}
    for event, result in zip(events, ("none", "fail", "none"), strict=True):
        assert {name: str(event[name]).split(" ")[0] for name in wanted} == wanted
        assert (event["dmarc"], event["client"]) == (result, scene.sender.address)
    assert len({event["id"] for event in events}) == 3
