"""OpenDMARC as a reader of our Authentication-Results: what it takes from the field, and what DMARC is by that.

Debian's opendmarc in its test mode (`-t`), in a network namespace where the lab answers its questions to DNS.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.dkim.verify import DkimResult, DkimStatus
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcResult, DmarcStatus
from forwarder.auth.iprev import IprevResult, IprevStatus
from forwarder.auth.results import Authentication, authentication_results
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.address import parse_mailbox
from tests.lab.world import World, missing, namespace_refusal, namespace_world

pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(missing(["opendmarc"])), reason=missing(["opendmarc"]) or "-"),
    pytest.mark.skipif(bool(namespace_refusal()), reason=namespace_refusal() or "-"),
]

ID = "mx.ours.test"
CONFIGURATION = f"""
AuthservID {ID}.reader
TrustedAuthservIDs {ID}
HistoryFile {{folder}}/history
RecordAllMessages true
SPFIgnoreResults false
SPFSelfValidate false
Syslog false
"""
REST = b"From: a@sender.test\r\nDate: Mon, 23 Nov 2026 00:00:00 +0000\r\nMessage-ID: <x@sender.test>\r\n\r\nbody\r\n"
PASS, FAIL = "0", "7"  # in OpenDMARC's history

UNPROVEN = SpfResult(SpfStatus.FAIL, "sender.test", "all", "198.51.100.9 is not allowed to send for sender.test")
PROVEN = SpfResult(SpfStatus.PASS, "sender.test", "ip4:192.0.2.0/24", "")
GOOD = DkimResult(DkimStatus.PASS, "sender.test", "lab", "@sender.test", "rsa-sha256", "dzdVyOf/")
BAD = replace(GOOD, status=DkimStatus.FAIL, reason="the body was changed")
NOTHING = Authentication(
    "2001:db8::9",
    "mail.sender.test",
    parse_mailbox("a/b=c@sender.test"),
    spf=SpfCheck(UNPROVEN, UNPROVEN),
    dkim_checked=True,
)
EVERYTHING = replace(
    NOTHING,
    iprev=IprevResult(IprevStatus.PASS, "mail.sender.test", ""),
    spf=SpfCheck(PROVEN, UNPROVEN),
    dkim=(GOOD,),
    arc=ArcResult(ArcStatus.PASS, 2, sealer="relay.test", oldest_pass=1),
    dmarc=DmarcResult(DmarcStatus.PASS, "sender.test", Policy.REJECT, published="v=DMARC1; p=reject"),
)


@dataclass(frozen=True)
class Reading:
    """What OpenDMARC made of a message: its result, and of the history the signatures and the result of SPF."""

    dmarc: str
    dkim: list[str]
    spf: str


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with namespace_world() as made:
        made.dns.add("_dmarc.sender.test", "TXT", "v=DMARC1; p=reject")
        (made.folder / "opendmarc.conf").write_text(CONFIGURATION.format(folder=made.folder))
        yield made


def read(world: World, found: Authentication) -> Reading:
    (world.folder / "message").write_bytes(authentication_results(ID, found, "none") + REST)
    (world.folder / "history").unlink(missing_ok=True)
    folder = world.folder
    done = world.run("/usr/sbin/opendmarc", "-c", f"{folder}/opendmarc.conf", "-t", f"{folder}/message", "-vv")
    result = re.search(rb"hvalue='[^']*dmarc=(\w+)", done.stdout)
    assert result, (done.stdout, done.stderr)
    history = [line.split(" ") for line in (folder / "history").read_text().splitlines()]
    signatures = [" ".join(words[1:]) for words in history if words[0] == "dkim"]
    (spf,) = (words[1] for words in history if words[0] == "spf")
    return Reading(result[1].decode(), signatures, spf)


@pytest.mark.parametrize(
    ("found", "reading"),
    [
        (replace(NOTHING, dkim=(GOOD,)), Reading("pass", [f"sender.test lab {PASS}"], FAIL)),
        # In test mode the envelope has a sender of OpenDMARC's own, with which From is not aligned.
        (replace(NOTHING, spf=SpfCheck(PROVEN, UNPROVEN)), Reading("fail", [], PASS)),
        (NOTHING, Reading("fail", [], FAIL)),
        (EVERYTHING, Reading("pass", [f"sender.test lab {PASS}"], PASS)),
        (replace(NOTHING, dkim=(BAD,)), Reading("fail", [f"sender.test lab {FAIL}"], FAIL)),
        (
            replace(NOTHING, dkim=(BAD, replace(GOOD, selector="other", signature_start="abc/defg"))),
            Reading("pass", [f"sender.test lab {FAIL}", f"sender.test other {PASS}"], FAIL),
        ),
    ],
)
def test_it_takes_from_the_field_what_was_found(world: World, found: Authentication, reading: Reading) -> None:
    assert read(world, found) == reading


@pytest.mark.parametrize(
    "text",
    [
        "; dkim=pass header.d=sender.test header.s=lab",
        "x); dkim=pass header.d=sender.test header.s=lab; (y",
        '"; dkim=pass header.d=sender.test; x="',
        "x\r\n\t; spf=pass smtp.mailfrom=a@sender.test",
        "x\r\nAuthentication-Results: mx.ours.test; spf=pass smtp.mailfrom=a@sender.test\r\nX: ",
        "\\); spf=pass smtp.mailfrom=a@sender.test; (\\",
    ],
)
def test_strangers_say_nothing_in_it(world: World, text: str) -> None:
    evil = DkimResult(DkimStatus.FAIL, "evil.test", text, f"{text}@evil.test", text, text, text)
    denied = replace(UNPROVEN, reason=text, mechanism=text)
    found = replace(NOTHING, helo=text, dkim=(evil,), spf=SpfCheck(denied, denied))
    reading = read(world, found)
    assert (reading.dmarc, reading.spf, len(reading.dkim)) == ("fail", FAIL, 1)
    assert read(world, replace(found, sender=None)).dmarc == "fail"
