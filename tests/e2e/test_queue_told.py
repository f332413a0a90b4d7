"""Who is told when nothing more is tried, what comes back by SRS, and loops: never a stranger, never twice."""

import re
from collections.abc import Iterator

import pytest

from forwarder.model.address import Address
from forwarder.ops.clock import SystemClock
from forwarder.rewrite.srs import Srs
from tests.e2e.queue_stage import ME, Place, Scene, Who, dsn, id_of, scene, states
from tests.lab.client import Client
from tests.lab.gateway import SRS_SECRET, Gateway, Value
from tests.lab.hop import Received
from tests.lab.maildir import wait_for

LATER = "451 4.3.0 come back later"
NEVER = "550 5.7.17 we do not want this"
_DAY = 86_400


@pytest.fixture(scope="module")
def everybody() -> Iterator[Scene]:
    """Give a gateway that tries for a second and a half, and tells the postmaster at once."""
    with scene(intervals={"expire": 1.5}, runner={"notice_after": 0.0, "notice_every": 0.0}) as found:
        yield found


@pytest.fixture
def stage(everybody: Scene) -> Iterator[Scene]:
    everybody.begin()
    yield everybody
    everybody.end()


def notice(received: Received) -> str:
    """Check that a message is a notice to the postmaster; give its text."""
    assert (received.sender, received.recipients) == ("", ("postmaster@elsewhere.test",))
    header, _, text = received.octets.decode("ascii").partition("\r\n\r\n")
    assert "<postmaster@mx.forward.test>" in header
    assert "Auto-Submitted: auto-generated" in header
    return text


def test_at_expiry_a_known_sender_is_told(stage: Scene) -> None:
    place = stage.place()
    place.d.say(dot=LATER)
    answer = stage.send(Who.SPF, place.one)
    assert answer.code == 250, answer
    (told,) = stage.home.wait()
    (about,) = dsn(told).recipients
    assert (about["Action"], about["Status"]) == ("failed", "4.4.7")
    assert about["Final-Recipient"] == f"rfc822; {place.one}"
    assert "come back later" in about["Diagnostic-Code"]
    assert about["Last-Attempt-Date"]
    stage.wait_empty()
    assert stage.story("expired", id_of(answer))
    assert len(stage.home.received) == 1
    assert stage.office.received == []


def test_at_expiry_of_a_strangers_mail_the_owner_is_told(stage: Scene) -> None:
    place = stage.place()
    place.e.say(dot=LATER)
    octets = stage.message(Who.NOBODY)
    answer = stage.send(Who.NOBODY, place.both, octets)
    assert answer.code == 250, answer
    (told,) = stage.office.wait()
    text = notice(told)
    assert id_of(answer) in text
    assert f"for {place.both}, which leads to box@e{place.number}.test" in " ".join(text.split())
    assert "come back later" in text
    (entry,) = stage.queue()
    assert states(entry)[f"box@e{place.number}.test"] == "held"
    assert stage.home.received == [], "whoever it said to be"
    place.e.say(dot="250 2.0.0 taken")
    assert stage.ask(verb="release", ids=[entry["id"]])["changed"] == 1
    (taken,) = place.e.wait()
    assert taken.octets.endswith(octets)
    stage.wait_empty()


def null_sender(stage: Scene, place: Place) -> str:
    """Send with the null sender to both; give the reply's code and id."""
    answer = stage.send(Who.SPF, place.both, sender="")
    return f"{answer.code} {id_of(answer)}"


def test_nobody_is_told_of_mail_with_the_null_sender(stage: Scene) -> None:
    """Row 35: refused where possible, put off where not, held where somebody has it already."""
    place = stage.place()
    place.d.say(dot=NEVER)
    place.e.say(dot=NEVER)
    assert null_sender(stage, place).startswith("550")
    place.d.say(dot=LATER)
    assert null_sender(stage, place).startswith("451")
    assert stage.queue() == []
    place.d.say(dot="250 2.0.0 taken")
    code, id = null_sender(stage, place).split()
    assert code == "250"
    assert id in notice(stage.office.wait()[0])
    assert [entry["id"] for entry in stage.queue()] == [id]
    stage.delete(id)
    assert stage.home.received == []


def test_twenty_failures_make_one_mail() -> None:
    """With what it ships with nothing is told for five minutes, and what is untold is told after a restart."""
    with scene() as stage:
        place = stage.place()
        place.e.say(dot=NEVER)
        ids = [id_of(stage.send(Who.NOBODY, place.both)) for _ in range(20)]
        assert stage.office.received == []
        stage.stop()
        stage.gateway.tune(runner={"notice_after": 0.0})
        stage.gateway.start()
        (told,) = stage.office.wait()
        text = notice(told)
        assert sorted(re.findall(r"^    (\w{16})\r?$", text, re.MULTILINE)) == sorted(ids)
        assert text.count("which leads to") == 20
        wait_for(lambda: all(part["owner_told"] for entry in stage.queue() for part in entry["to"]))
        late = id_of(stage.send(Who.NOBODY, place.both))
        (untold,) = [entry for entry in stage.queue() if not all(part["owner_told"] for part in entry["to"])]
        assert untold["id"] == late
        assert len(stage.office.received) == 1, "the next one within the hour waits"


# SRS


def test_a_bounce_comes_back_through_us(stage: Scene) -> None:
    place = stage.place()
    assert stage.send(Who.SPF, place.one).code == 250
    path = place.d.accepted[0].sender
    assert path.endswith("@" + stage.gateway.srs_domain)
    bounce = b"Subject: Undelivered\r\nAuto-Submitted: auto-replied\r\n\r\nlate\r\n"
    with Client(stage.world, stage.gateway.host, place.d.host) as client:
        client.ehlo()
        assert client.send("", path, bounce).code == 250
    (told,) = stage.home.accepted
    assert (told.sender, told.recipients) == ("", (ME,))
    assert told.octets.endswith(bounce)
    assert stage.queue() == []


def test_a_bounce_for_a_sender_who_is_down_stays_where_it_is(stage: Scene) -> None:
    place = stage.place()
    assert stage.send(Who.SPF, place.one).code == 250
    stage.home.down()
    try:
        answer = stage.send(Who.NOBODY, place.d.accepted[0].sender, sender="")
    finally:
        stage.home.up()
    assert answer.code == 451, answer
    assert stage.queue() == []


def test_srs_addresses_that_are_not_good(stage: Scene) -> None:
    """Row 36: stale, from the future, of another secret, altered, cut off."""
    srs = Srs(stage.gateway.srs_domain, [SRS_SECRET.encode()], 21)
    foreign = Srs(stage.gateway.srs_domain, [b"a secret of somebody else, as long"], 21)
    sender = Address("me", "sender.test")
    today = int(SystemClock().now().timestamp()) // _DAY
    good = str(srs.encode(sender, today))
    wrong = [
        str(srs.encode(sender, today - 30)),
        str(srs.encode(sender, today + 9)),
        str(foreign.encode(sender, today)),
        good.replace("=me@", "=you@"),
        good.replace("SRS0=", "SRS0=A"),
        re.sub(r"SRS0=(....)[^=]*=", r"SRS0=\1=", good),
    ]
    with stage.connect(Who.NOBODY) as client:
        assert client.command("MAIL FROM:<>").code == 250
        assert [client.command(f"RCPT TO:<{one}>").code for one in wrong] == [550] * len(wrong)
        assert client.command(f"RCPT TO:<{good}>").code == 250


# Loops


@pytest.mark.parametrize("mode", ["cutthrough", "queue"])
def test_an_alias_loop_over_two_gateways_ends_with_one_dsn(stage: Scene, mode: str) -> None:
    """Row 39: `round` leads to the other gateway, which sends it back; `d` has its copy, so 250 was told."""
    place = stage.place()
    far = stage.world.host(f"mx.{mode}.test", f"{mode}.test")
    there, back = f"round@{mode}.test", f"round{mode}@forward.test"
    settings: dict[str, Value] = {"delivery.cutthrough_deadline": "2s", "delivery.retry": ["1s"], "delivery.mode": mode}
    if not stage.world.dns.has("forward.test"):
        stage.world.dns.add("forward.test", "MX", "10 mx.forward.test.")
    with Gateway(stage.world, far, f"[{mode}.test]\nround -> {back}\n", settings=settings) as other:
        stage.world.dns.add(other.srs_domain, "TXT", f"v=spf1 ip4:{far.address} -all")
        rules = stage.gateway.rules_file.read_text() + f"round{mode} -> {there}, box@d{place.number}.test\n"
        assert stage.gateway.reload(rules).status == 0
        assert stage.send(Who.SPF, back).code == 250
        (told,) = stage.home.wait()
        assert b"5.4.6" in told.octets
        stage.wait_empty()
        wait_for(lambda: "empty" in other.run("queue", "list").output, what="the other queue does not empty")
    assert (len(place.d.accepted), len(stage.home.received)) == (1, 1)
    assert stage.office.received == []
