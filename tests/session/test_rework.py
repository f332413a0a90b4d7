"""A From of ours for a message that lies in the queue: by its own lines alone, once, and only if it passed here."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import dkim
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dmarc.from_header import author_domain
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.envelope import MailOptions
from forwarder.model.headers import split_header
from forwarder.model.letter import Letter, Progress, State
from forwarder.model.message import Delivery, MemoryContent, Outgoing
from forwarder.policy.content import ContentLimits
from forwarder.policy.rewriting import Rewriting, Wishes
from forwarder.session.custody import letter_of
from forwarder.session.gateway import Signing
from forwarder.session.rework import rework
from tests.session.stage import srs
from tests.session.test_departure import BODY, EDWARDS, OTHERS, OURS, Scene, letter, names, signed, whole, zone

LINES = b"X-Forwarded-To:"  # where our own lines begin that are no signatures


class Unread(MemoryContent):
    """Content that nobody may read as a whole."""

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("it is read as a whole")


def stored(message: Outgoing) -> Letter:
    """Give a message as the spool has it."""
    octets = b"".join(message.content.chunks())
    return letter_of(replace(message, content=Unread(octets)), datetime.now(UTC), split_header(octets))


async def queued(octets: bytes = b"", *to: str, scene: Scene | None = None) -> tuple[Scene, Letter]:
    """Give a letter that passed here by DKIM and went with From as it came."""
    scene = scene or Scene(zone("reject", spf=False))
    await scene.send(octets or signed(letter()), *to)
    return scene, stored(scene.stage.courier.messages[-1])


def again(scene: Scene, old: Letter) -> Outgoing | None:
    return rework(scene.stage.gateway, old, [0])


def octets_of(old: Letter) -> bytes:
    return old.message.content.head(10**6)


def copy(made: Outgoing, old: Letter) -> bytes:
    """Give the new copy whole; its content is the old one without From."""
    left = replace(made, content=MemoryContent(without_from(octets_of(old))))
    assert made.content.head(10**6) == without_from(octets_of(old))
    return whole(left, made.deliveries[0])


def without_from(octets: bytes) -> bytes:
    (field,) = split_header(octets).all(b"from")
    return octets.replace(field.raw, b"", 1)


def verifies(scene: Scene, octets: bytes) -> bool:
    """Have dkimpy verify the topmost signature."""
    try:
        return bool(dkim.DKIM(octets).verify(0, dnsfunc=scene._txt))
    except dkim.ValidationError:  # how it says that the body is another one
        return False


async def test_it_is_from_us_and_verifies_and_the_rest_stays() -> None:
    scene, old = await queued()
    made = again(scene, old)
    assert made is not None
    octets, (before,) = copy(made, old), old.message.deliveries
    assert names(split_header(octets))[:10] == [
        *("dkim-signature", "x-forwarded-to", "x-forwarded-for", "delivered-to", "authentication-results", "received"),
        *("from", "reply-to", "x-original-from"),
        "dkim-signature",  # the author's: it tells what the message was
    ]
    assert before.head[before.head.index(LINES) :] in octets
    assert b'\r\nFrom: "Ann via ours.example" <me@ours.example>\r\n' in octets
    assert b'\r\nReply-To: "Ann" <a@sender.example>\r\n' in octets
    assert author_domain(split_header(octets)).domain == "ours.example"
    assert verifies(scene, octets)
    assert not verifies(scene, octets.replace(b"Hello", b"Hallo"))


async def test_it_is_the_same_message_in_all_other_respects() -> None:
    scene, old = await queued()
    made = again(scene, old)
    assert made is not None
    assert made.id != old.message.id
    assert made.content.digest == old.message.content.digest
    same = replace(made, id=old.message.id, content=old.message.content, deliveries=old.message.deliveries)
    assert same == old.message
    (after,), (before,) = made.deliveries, old.message.deliveries
    assert replace(after, head=b"") == replace(before, head=b"")


async def test_each_destination_of_an_address_keeps_its_own_lines() -> None:
    scene, old = await queued(b"", "<both@ours.example>")
    made = rework(scene.stage.gateway, old, [1, 0])
    assert made is not None
    assert [str(each.destination.address) for each in made.deliveries] == ["other@inbox.example", "me@inbox.example"]
    assert [b"X-Forwarded-To: " + str(each.destination.address).encode() in each.head for each in made.deliveries] == [
        True,
        True,
    ]
    assert len({each.head.partition(LINES)[0] for each in made.deliveries}) == 1, "one signature serves all"


async def test_it_is_done_once() -> None:
    scene, old = await queued()
    made = again(scene, old)
    assert made is not None
    assert again(scene, stored(replace(made, content=MemoryContent(without_from(octets_of(old)))))) is None


async def test_a_from_on_top_is_enough_to_be_left_alone() -> None:
    scene, old = await queued()
    (delivery,) = old.message.deliveries
    topped = replace(delivery, head=delivery.head + b"From: me@ours.example\r\n")
    assert again(scene, replace(old, message=replace(old.message, deliveries=(topped,)))) is None


async def test_what_has_a_from_of_ours_from_the_start_is_left_alone() -> None:
    scene, old = await queued(letter(), scene=Scene(zone("reject")))
    assert b"via ours.example" in old.message.deliveries[0].head
    assert again(scene, old) is None


async def test_only_where_from_may_be_rewritten() -> None:
    scene, old = await queued()
    object.__setattr__(scene.stage.gateway.settings, "rewriting", Wishes(Rewriting.NEVER))
    assert again(scene, old) is None


@pytest.mark.parametrize("lie", [b"", b"Authentication-Results: mx.theirs.example; dmarc=pass\r\n"])
async def test_only_what_passed_here(lie: bytes) -> None:
    scene, old = await queued(letter(more=lie), scene=Scene(zone("none", spf=False)))
    assert b"dmarc=fail" in old.message.deliveries[0].head
    assert again(scene, old) is None


async def test_nobody_else_can_say_that_it_passed() -> None:
    """What strangers put into our field (the greeting, selectors, reasons) is no clause of it."""
    author = letter(more=b"DKIM-Signature: v=1; a=rsa-sha256; d=x.example; s=a;dmarc=pass; b=x; bh=x; h=from\r\n")
    scene, old = await queued(author, scene=Scene(zone("none", spf=False)))
    assert again(scene, old) is None


async def test_the_arc_set_says_it_where_a_signature_keeps_our_results_out() -> None:
    scene, old = await queued(signed(letter(), (b"from", b"authentication-results")))
    (before,) = old.message.deliveries
    assert "authentication-results" not in names(split_header(before.head))
    made = again(scene, old)
    assert made is not None
    assert verifies(scene, copy(made, old))


@pytest.mark.parametrize(
    "signing",
    [
        Signing(),
        Signing({"ours.example": (OURS,)}, sign=False),
        Signing({"ours.example": (EDWARDS,)}),
        Signing({}, (OTHERS,)),
    ],
)
async def test_only_where_a_key_makes_it_pass(signing: Signing) -> None:
    scene, old = await queued()
    object.__setattr__(scene.stage.gateway, "signing", signing)
    assert again(scene, old) is None


async def test_what_we_did_not_sign_is_left_alone() -> None:
    scene = Scene(zone("reject", spf=False))
    keys = scene.stage.gateway.signing
    object.__setattr__(scene.stage.gateway, "signing", Signing())
    _, old = await queued(scene=scene)
    object.__setattr__(scene.stage.gateway, "signing", keys)
    assert again(scene, old) is None


async def test_a_stranger_gets_no_from_of_ours() -> None:
    scene = Scene(zone("reject", spf=False))
    stranger = srs("them@theirs.example", scene.stage.gateway.day)
    _, old = await queued(b"", f"<{stranger}>", scene=scene)
    assert again(scene, old) is None


async def test_a_header_beyond_the_limit_is_left_alone() -> None:
    scene, old = await queued()
    size = octets_of(old).index(b"\r\nSubject:") + 5
    object.__setattr__(scene.stage.gateway.settings, "content", ContentLimits(header_size=size))
    assert again(scene, old) is None


async def test_a_fault_is_told_to_the_operator_and_nothing_else_happens() -> None:
    class Unreadable(MemoryContent):
        def head(self, limit: int) -> bytes:
            raise OSError("the disk is broken")

    scene, old = await queued()
    broken = replace(old, message=replace(old.message, content=Unreadable(octets_of(old))))
    assert again(scene, broken) is None
    (alert,) = scene.stage.log.named("alert")
    assert alert["id"] == old.message.id
    assert "the disk is broken" in str(alert["reason"])


LYING = Scene(zone("reject", spf=False))


@given(st.binary(max_size=200), st.booleans())
def test_whatever_lies_in_the_queue(octets: bytes, has_author: bool) -> None:
    """It never fails; what it makes has one From, which is ours, and is not made twice."""
    content = MemoryContent(b"From: a@sender.example\r\n" * has_author + octets)
    body_hash = b64encode(sha256(BODY).digest())
    top = (
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=ours.example; s=s1; h=from; b=eA==; bh="
        + body_hash
        + b"\r\nAuthentication-Results: mx.ours.example; dmarc=pass\r\n"
    )
    delivery = Delivery(Address("me", "ours.example"), Destination(Address("me", "inbox.example")), top)
    message = Outgoing("id1", None, None, MailOptions(), content, (delivery,))
    old = Letter(message, datetime.now(UTC), (Progress(State.QUEUED),))
    made = again(LYING, old)
    if made is None:
        return
    after = split_header(made.deliveries[0].head + made.content.head(10**6))
    assert author_domain(after).domain == "ours.example"
    assert again(LYING, replace(old, message=made)) is None
