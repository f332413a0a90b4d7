"""What leaves is signed, sealed and foreseen; From is rewritten only where it has to be."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from forwarder.model.address import Address
from forwarder.model.headers import Header, split_header
from forwarder.model.letter import Letter
from forwarder.model.message import Delivery, Outgoing
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply
from forwarder.model.ruling import Fate, Ruling, Scope
from forwarder.policy.dmarc import Enforcement
from forwarder.policy.rewriting import Otherwise, Rewriting, Wishes
from forwarder.rewrite.author import Rewritten, Unwritable, rewrite_author
from forwarder.rewrite.signing_key import SigningKey, load_key, public_record
from forwarder.session.departure import sign_own
from forwarder.session.examination import Checks
from forwarder.session.gateway import Signing
from tests.session.stage import DELIVERED, Stage, hold_second_offer, srs, stop_when


def key(domain: str, selector: str, private: RSAPrivateKey | Ed25519PrivateKey) -> SigningKey:
    return load_key(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), domain, selector)


_RSA = generate_private_key(65537, 2048)
OURS = key("ours.example", "s1", _RSA)
EDWARDS = key("ours.example", "e1", Ed25519PrivateKey.generate())
OTHERS = key("others.example", "s1", _RSA)
THEIRS = key("sender.example", "x", _RSA)

SPF = "v=spf1 ip4:192.0.2.1 -all"
BODY = b"Hello.\r\n"
REFUSED_BY_DMARC = Outcome(
    Verdict.REFUSED,
    Reply(550, "5.7.26", "the domain's DMARC policy"),
    "mx[192.0.2.9]:25",
    remote=True,
    ruling=Ruling("dmarc", Scope.MESSAGE, Fate.RETURN),
)


def zone(policy: str = "", *, spf: bool = True, author: str = "sender.example") -> Mapping[tuple[str, str], list[str]]:
    records = {(each.name, "TXT"): [public_record(each)] for each in (OURS, THEIRS)}
    if policy:
        records[f"_dmarc.{author}", "TXT"] = [f"v=DMARC1; p={policy}"]
    if spf:
        records[author, "TXT"] = [SPF]
    records[author, "A"] = ["192.0.2.1"]
    return records


def letter(author: str = "Ann <a@sender.example>", more: bytes = b"") -> bytes:
    return b"From: " + author.encode() + b"\r\nTo: me@ours.example\r\nSubject: hello\r\n" + more + b"\r\n" + BODY


def signed(octets: bytes, names: tuple[bytes, ...] = (b"from", b"subject")) -> bytes:
    private = THEIRS.pem()
    field = dkim.sign(octets, b"x", b"sender.example", private, include_headers=list(names))
    return bytes(field) + octets


class Scene:
    """A stage that signs. `send` gives the reply; `sent` are the octets of each copy."""

    def __init__(self, records: Mapping[tuple[str, str], list[str]], wishes: Wishes | None = None) -> None:
        self.stage = Stage()
        self.stage.clock.time = datetime.now(UTC)  # dkimpy signs and verifies by the clock on the wall
        self.stage.resolver.zone = records
        keys = Signing({"ours.example": (OURS, EDWARDS)}, (OURS, EDWARDS))
        object.__setattr__(self.stage.gateway, "signing", keys)
        object.__setattr__(self.stage.gateway.settings, "rewriting", wishes or Wishes())

    async def send(self, octets: bytes, *to: str, sender: str = "<a@sender.example>") -> Reply:
        await self.stage.begin(sender, *(to or ("<me@ours.example>",)))
        return await self.stage.send(octets)

    @property
    def sent(self) -> list[bytes]:
        return [whole(message, delivery) for message in self.stage.courier.messages for delivery in message.deliveries]

    def header(self, n: int = 0) -> Header:
        return split_header(self.sent[n])

    @property
    def foreseen(self) -> dict[str, object]:
        return self.stage.log.named("foreseen")[-1]

    def verified(self, n: int = 0) -> list[tuple[str, bool]]:
        """Have dkimpy verify each RSA signature of a copy; dkimpy needs another library for Ed25519."""
        octets = self.sent[n]
        found = []
        for index, field in enumerate(split_header(octets).all(b"dkim-signature")):
            text = "".join(field.value.decode().split())
            if "a=rsa" in text:
                domain = text.partition(";d=")[2].partition(";")[0]
                found.append((domain, bool(dkim.DKIM(octets).verify(index, dnsfunc=self._txt))))
        return found

    def sealed(self, n: int = 0) -> bool:
        result, _, _ = dkim.arc_verify(self.sent[n], dnsfunc=self._txt)
        return bool(result == b"pass")

    def _txt(self, name: bytes, timeout: int = 5) -> bytes:
        return self.stage.resolver.zone[name.decode().rstrip("."), "TXT"][0].encode()


def whole(message: Outgoing, delivery: Delivery) -> bytes:
    return delivery.head + b"".join(message.content.chunks())


def names(header: Header) -> list[str]:
    return [field.name.decode() for field in header.fields]


async def test_the_order_on_top_and_everything_below_untouched() -> None:
    scene = Scene(zone())
    octets = letter()
    assert (await scene.send(octets)).code == 250
    assert names(scene.header())[:10] == [
        "dkim-signature",
        "dkim-signature",
        "arc-seal",
        "arc-message-signature",
        "arc-authentication-results",
        "x-forwarded-to",
        "x-forwarded-for",
        "delivered-to",
        "authentication-results",
        "received",
    ]
    assert scene.sent[0].endswith(octets)
    assert scene.verified() == [("ours.example", True)]
    assert scene.sealed()


async def test_one_signature_serves_all_copies_of_a_domain() -> None:
    scene = Scene(zone())
    await scene.send(letter(), "<both@ours.example>")
    assert len(scene.sent) == 2
    first, second = (split_header(octets).all(b"dkim-signature") for octets in scene.sent)
    assert [field.raw for field in first] == [field.raw for field in second]
    assert scene.verified(0) == scene.verified(1) == [("ours.example", True)]


async def test_what_was_signed_on_arrival_still_is() -> None:
    scene = Scene(zone("reject", spf=False))
    await scene.send(signed(letter()))
    assert scene.verified() == [("ours.example", True), ("sender.example", True)]
    assert (scene.foreseen["dmarc"], scene.foreseen["carrier"], scene.foreseen["action"]) == (
        "pass",
        "sender.example",
        "forward",
    )
    assert "broken" not in scene.foreseen


async def test_what_a_signature_names_is_not_put_on_top() -> None:
    scene = Scene(zone("reject", spf=False))
    await scene.send(signed(letter(), (b"from", b"subject", b"delivered-to", b"x-forwarded-for")))
    assert {"delivered-to", "x-forwarded-for"}.isdisjoint(names(scene.header()))
    assert "x-forwarded-to" in names(scene.header())
    assert scene.verified()[-1] == ("sender.example", True)


async def test_a_signature_that_we_break_is_told() -> None:
    scene = Scene(zone("reject", spf=True))
    forged = b"Authentication-Results: mx.ours.example; dmarc=pass\r\n"
    await scene.send(signed(letter(more=forged), (b"from", b"subject", b"authentication-results")))
    assert forged not in scene.sent[0]
    assert scene.verified()[-1] == ("sender.example", False)
    assert scene.foreseen["broken"] == "sender.example"


class TestForgedFromOfOurs:
    """Our signature must not make mail pass as ours that nobody has shown to be."""

    FORGED = letter("The owner <me@ours.example>")

    @pytest.mark.parametrize("policy", ["", "none"])
    async def test_it_is_not_signed(self, policy: str) -> None:
        scene = Scene(zone(policy, spf=False, author="ours.example"))
        assert (await scene.send(self.FORGED)).code == 250
        assert scene.header().all(b"dkim-signature") == ()
        assert scene.sealed()  # a seal says what we saw

    @pytest.mark.parametrize(
        "author",
        [
            "x@sub.ours.example",
            "a@sender.example, b@ours.example",
            "a b c@ours.example>",
            'x@(who)ours.example "',
            "x@ours.(who)example, y <",
            "<x@=?utf-8?q?ours.example?=>",
        ],
    )
    async def test_nor_what_may_be_read_as_such(self, author: str) -> None:
        scene = Scene(zone(spf=False))
        await scene.send(letter(author))
        assert scene.header().all(b"dkim-signature") == ()

    @pytest.mark.parametrize(
        ("policy", "enforcement", "signed_"),
        [
            ("v=DMARC1; p=none", Enforcement.ENFORCE, False),
            ("v=DMARC1; p=none; psd=y", Enforcement.ENFORCE, True),
            ("", Enforcement.ENFORCE, True),
            ("", Enforcement.OFF, False),
        ],
    )
    async def test_nor_what_the_tree_walk_may_take_for_ours(
        self, policy: str, enforcement: Enforcement, signed_: bool
    ) -> None:
        scene = Scene({("_dmarc.github.io", "TXT"): [policy]} if policy else {})
        own = (key("ours.github.io", "s1", _RSA),)
        object.__setattr__(scene.stage.gateway, "signing", Signing({}, own))
        object.__setattr__(scene.stage.gateway.settings, "checks", Checks(dmarc=enforcement))
        await scene.send(letter("x@theirs.github.io"))
        assert bool(scene.header().all(b"dkim-signature")) is signed_

    async def test_what_is_shown_to_be_ours_is_signed_and_passes_by_that(self) -> None:
        scene = Scene(zone("reject", author="ours.example"))
        await scene.send(self.FORGED, sender="<me@ours.example>")
        assert [domain for domain, _ in scene.verified()] == ["ours.example"]
        assert len(scene.header().all(b"dkim-signature")) == 1  # RSA alone: From is ours
        assert (scene.foreseen["dmarc"], scene.foreseen["carrier"]) == ("pass", "ours.example")


class TestRewriting:
    async def test_mail_that_only_spf_carried_gets_a_from_of_ours(self) -> None:
        scene = Scene(zone("reject"))
        octets = letter()
        assert (await scene.send(octets)).code == 250
        header = scene.header()
        (author,) = header.all(b"from")
        assert author.value.strip() == b'"Ann via ours.example" <me@ours.example>'
        assert header.all(b"reply-to")[0].value.strip() == b'"Ann" <a@sender.example>'
        assert header.all(b"x-original-from")[0].value.strip() == b"Ann <a@sender.example>"
        assert scene.sent[0].endswith(octets.partition(b"\r\n")[2])
        assert scene.verified() == [("ours.example", True)]
        assert scene.sealed()
        assert scene.foreseen["action"] == "rewrite"

    async def test_each_alias_has_its_own(self) -> None:
        scene = Scene(zone("reject"))
        await scene.send(letter(), "<me@ours.example>", "<both@ours.example>")
        authors = [split_header(octets).all(b"from")[0].value for octets in scene.sent]
        assert [b"me@ours" in authors[0], b"both@ours" in authors[1]] == [True, True]
        assert scene.verified(0) == scene.verified(1) == [("ours.example", True)]

    @pytest.mark.parametrize(
        ("policy", "wishes", "action"),
        [
            ("none", Wishes(), "forward"),
            ("none", Wishes(Rewriting.ALWAYS), "rewrite"),
            ("quarantine", Wishes(), "rewrite"),
            ("reject", Wishes(Rewriting.NEVER), "forward"),
            ("", Wishes(Rewriting.ALWAYS), "forward"),
        ],
    )
    async def test_by_the_operators_wishes(self, policy: str, wishes: Wishes, action: str) -> None:
        scene = Scene(zone(policy), wishes)
        assert (await scene.send(letter())).code == 250
        assert scene.foreseen["action"] == action
        assert (b"via ours.example" in scene.header().all(b"from")[0].value) == (action == "rewrite")

    async def test_or_it_is_refused_with_advice(self) -> None:
        scene = Scene(zone("reject"), Wishes(Rewriting.NEVER, Otherwise.REJECT))
        reply = await scene.send(letter())
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert "Sign your mail with DKIM for sender.example" in reply.text
        assert scene.sent == []

    @pytest.mark.parametrize(
        "signing",
        [
            Signing(),
            Signing({"ours.example": (OURS,)}, sign=False),
            Signing({"ours.example": (EDWARDS,)}),  # not all receivers can read it
            Signing({}, (OTHERS,)),  # not aligned with From
        ],
    )
    async def test_without_a_key_that_carries_it_it_is_not_rewritten(self, signing: Signing) -> None:
        scene = Scene(zone("reject"))
        object.__setattr__(scene.stage.gateway, "signing", signing)
        await scene.send(letter())
        assert b"via" not in scene.header().all(b"from")[0].value
        assert "no key signs" in str(scene.foreseen["text"])


HINDERED = "<{}@xn--bcher-kva.example>"  # served, and no key is aligned with it
REJECT = Wishes(otherwise=Otherwise.REJECT)


class TestEachAlias:
    """What is foreseen and decided for one alias is its own."""

    async def test_one_that_can_have_no_from_of_ours_does_not_keep_another_from_it(self) -> None:
        scene = Scene(zone("reject"))
        octets = letter()
        assert (await scene.send(octets, "<me@ours.example>", HINDERED.format("both"))).code == 250
        untouched, rewritten = scene.stage.courier.messages
        assert untouched.id != rewritten.id
        assert [str(each.destination.address) for each in untouched.deliveries] == ["other@inbox.example"]
        assert [str(each.recipient) for each in rewritten.deliveries] == ["me@ours.example"]
        assert scene.sent[0].endswith(octets)
        assert b"me@ours.example" in scene.header(1).all(b"from")[0].value
        assert scene.sent[1].endswith(octets.partition(b"\r\n")[2])
        assert scene.verified(0) == scene.verified(1) == [("ours.example", True)]
        assert scene.sealed(0) and scene.sealed(1)
        found = {each["to"]: each for each in scene.stage.log.named("foreseen")}
        assert {to: each["action"] for to, each in found.items()} == {
            "me@ours.example": "rewrite",
            "both@xn--bcher-kva.example": "forward",
        }
        assert "no key signs for xn--bcher-kva.example" in str(found["both@xn--bcher-kva.example"]["text"])
        (split,) = scene.stage.log.named("rewritten")
        assert (split["again"], split["to"]) == (rewritten.id, "me@ours.example")

    async def test_a_reply_to_a_stranger_does_not_either(self) -> None:
        scene = Scene(zone("reject"))
        await scene.send(letter(), "<me@ours.example>", f"<{srs('them@theirs.example', scene.stage.gateway.day)}>")
        untouched, rewritten = scene.stage.courier.messages
        assert [str(each.destination.address) for each in untouched.deliveries] == ["them@theirs.example"]
        assert [str(each.recipient) for each in rewritten.deliveries] == ["me@ours.example"]

    async def test_what_is_cut_for_all_is_cut_for_each(self) -> None:
        scene = Scene(zone("reject"))
        forged = b"Authentication-Results: mx.ours.example; dmarc=pass\r\n"
        octets = letter(more=forged)
        await scene.send(octets, "<me@ours.example>", HINDERED.format("both"))
        assert scene.sent[0].endswith(octets.replace(forged, b""))
        assert scene.sent[1].endswith(octets.replace(forged, b"").partition(b"\r\n")[2])
        assert scene.verified(0) == scene.verified(1) == [("ours.example", True)]

    async def test_one_event_tells_of_all_that_are_alike(self) -> None:
        scene = Scene(zone("reject"))
        await scene.send(letter(), "<me@ours.example>", "<both@ours.example>")
        (event,) = scene.stage.log.named("foreseen")
        assert event["to"] == "me@ours.example both@ours.example"
        assert len(scene.stage.courier.messages) == 1

    async def test_our_own_signature_carries_only_those_that_have_it(self) -> None:
        scene = Scene(zone("reject", author="ours.example"), REJECT)
        object.__setattr__(scene.stage.gateway, "signing", Signing({"ours.example": (OURS,)}))
        octets = letter("The owner <me@ours.example>")
        reply = await scene.send(octets, "<me@ours.example>", HINDERED.format("both"), sender="<me@ours.example>")
        assert reply.code == 250
        assert scene.stage.sent_to() == ["me@inbox.example"]
        assert {each["to"]: each["dmarc"] for each in scene.stage.log.named("foreseen")} == {
            "me@ours.example": "pass",
            "both@xn--bcher-kva.example": "fail",
        }

    async def test_one_that_is_refused_does_not_stop_the_others(self) -> None:
        scene = Scene(zone("reject"), REJECT)
        reply = await scene.send(letter(), "<me@ours.example>", HINDERED.format("both"))
        assert (reply.code, "Forwarded to some" in reply.text) == (250, True)
        assert scene.stage.sent_to() == ["me@inbox.example"]
        ((kept, (outcome,)),) = scene.stage.keeper.kept  # from there the sender is told
        assert [str(each.destination.address) for each in kept.message.deliveries] == ["other@inbox.example"]
        assert (outcome.verdict, outcome.reply.code, outcome.reply.enhanced) == (Verdict.REFUSED, 550, "5.7.1")

    async def test_if_all_are_refused_that_is_the_answer(self) -> None:
        scene = Scene(zone("reject"), REJECT)
        reply = await scene.send(letter(), HINDERED.format("me"), HINDERED.format("both"))
        assert (reply.code, reply.enhanced) == (550, "5.7.1")
        assert reply.text.startswith("Forwarded, this would fail the DMARC policy of sender.example (reject), id ")
        assert (scene.sent, scene.stage.keeper.kept) == ([], [])

    async def test_of_two_that_lead_to_one_mailbox_the_one_that_may_go_does(self) -> None:
        scene = Scene(zone("reject"), REJECT)
        reply = await scene.send(letter(), HINDERED.format("me"), "<me@ours.example>")
        assert (reply.code, reply.text.split(",")[0]) == (250, "Forwarded")
        (message,) = scene.stage.courier.messages
        assert [str(each.recipient) for each in message.deliveries] == ["me@ours.example"]

    async def test_the_limit_of_one_that_is_refused_does_not_count(self) -> None:
        scene = Scene(zone("reject"), REJECT)
        for _ in range(4):  # its limit is two
            assert (await scene.send(letter(), "<both@ours.example>", HINDERED.format("few"))).code == 250

    async def test_a_discarded_message_is_never_refused(self) -> None:
        scene = Scene(zone("reject"), Wishes(Rewriting.NEVER, Otherwise.REJECT))
        assert (await scene.send(letter(), "<old@ours.example>")).code == 250
        assert scene.stage.log.named("foreseen") == []

    async def test_both_kinds_are_offered_at_once(self) -> None:
        scene = Scene(zone("reject"))
        meeting = asyncio.Barrier(2)
        hand_on = scene.stage.courier.hand_on

        async def together(message: Outgoing, deadline: float) -> Sequence[Outcome]:
            async with asyncio.timeout(60):
                await meeting.wait()
            return await hand_on(message, deadline)

        scene.stage.courier.hand_on = together  # type: ignore[method-assign]
        assert (await scene.send(letter(), "<me@ours.example>", HINDERED.format("both"))).code == 250
        assert len(set(scene.stage.courier.deadlines)) == 1

    async def test_what_was_taken_before_the_disk_was_full_is_not_taken_again(self) -> None:
        scene = Scene(zone("reject"))
        stage = scene.stage
        stage.courier.outcome = lambda _: Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), remote=True)
        keep = stage.keeper.keep

        async def once(letter: Letter, outcomes: Sequence[Outcome]) -> None:
            await keep(letter, outcomes)
            stage.keeper.trouble = Reply(452, "4.3.1", "no room")

        stage.keeper.keep = once  # type: ignore[method-assign]
        assert (await scene.send(letter(), "<me@ours.example>", HINDERED.format("both"))).code == 452
        ((kept, _),) = stage.keeper.kept
        assert [each.id for each in stage.courier.untold] == [kept.message.id]

    async def test_one_that_is_out_when_we_are_stopped_is_not_sent_again(self) -> None:
        scene = Scene(zone("reject"))
        courier = scene.stage.courier
        hold_second_offer(courier)
        await stop_when(scene.send(letter(), "<me@ours.example>", HINDERED.format("both")), courier, 2)
        assert courier.messages[0].id in [each.id for each in courier.untold]

    async def test_one_that_is_kept_when_we_are_stopped_is_not_taken_again(self) -> None:
        scene = Scene(zone("reject"))
        stage = scene.stage
        stage.courier.outcome = lambda _: Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), remote=True)
        keep, never = stage.keeper.keep, asyncio.Event()

        async def one_waits(letter: Letter, outcomes: Sequence[Outcome]) -> None:
            if stage.keeper.kept:
                await never.wait()
            await keep(letter, outcomes)

        stage.keeper.keep = one_waits  # type: ignore[method-assign]
        await stop_when(scene.send(letter(), "<me@ours.example>", HINDERED.format("both")), stage.courier, 2)
        ((kept, _),) = stage.keeper.kept
        assert [each.id for each in stage.courier.untold] == [kept.message.id]

    async def test_a_from_is_worked_out_once_for_an_alias(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[Address] = []

        def counting(header: Header, alias: Address, fallback: Address) -> Rewritten | Unwritable:
            asked.append(alias)
            return rewrite_author(header, alias, fallback)

        monkeypatch.setattr("forwarder.session.substitutes.rewrite_author", counting)
        scene = Scene(zone("reject"))
        await scene.send(letter(), "<both@ours.example>")
        assert (len(scene.sent), list(map(str, asked))) == (2, ["both@ours.example"])


class TestFallback:
    async def test_one_that_can_have_no_from_of_ours_is_refused_and_another_is_not(self) -> None:
        scene = Scene(zone("reject", spf=False))
        stage = scene.stage
        stage.courier.outcome = lambda each: DELIVERED if b"via ours.example" in each.head else REFUSED_BY_DMARC
        assert (await scene.send(signed(letter()), "<me@ours.example>", HINDERED.format("both"))).code == 250
        first, second = stage.courier.messages
        assert (len(first.deliveries), [str(each.recipient) for each in second.deliveries]) == (2, ["me@ours.example"])
        ((kept, outcomes),) = stage.keeper.kept
        assert ([str(each.recipient.domain) for each in kept.message.deliveries], outcomes) == (
            ["xn--bcher-kva.example"],
            [REFUSED_BY_DMARC],
        )

    async def test_what_passed_here_and_not_there_is_offered_once_more(self) -> None:
        scene = Scene(zone("reject", spf=False))
        stage = scene.stage
        stage.courier.outcome = lambda each: DELIVERED if b"via ours.example" in each.head else REFUSED_BY_DMARC
        octets = signed(letter())
        assert (await scene.send(octets)).code == 250
        first, second = stage.courier.messages
        assert first.id != second.id
        assert b"via ours.example" in second.deliveries[0].head
        assert stage.keeper.kept == []
        assert stage.log.named("rewritten")[0]["again"] == second.id

    async def test_it_is_tried_once(self) -> None:
        scene = Scene(zone("reject", spf=False))
        scene.stage.courier.outcome = lambda _: REFUSED_BY_DMARC
        assert (await scene.send(signed(letter()))).code == 550
        assert len(scene.stage.courier.messages) == 2

    @pytest.mark.parametrize("wishes", [Wishes(Rewriting.NEVER)])
    async def test_only_where_from_may_be_rewritten(self, wishes: Wishes) -> None:
        scene = Scene(zone("reject", spf=False), wishes)
        scene.stage.courier.outcome = lambda _: REFUSED_BY_DMARC
        assert (await scene.send(signed(letter()))).code == 550
        assert len(scene.stage.courier.messages) == 1

    async def test_only_for_what_passed_here(self) -> None:
        scene = Scene(zone("none", spf=False))
        scene.stage.courier.outcome = lambda _: REFUSED_BY_DMARC
        assert (await scene.send(letter())).code == 550
        assert len(scene.stage.courier.messages) == 1

    async def test_what_had_a_from_of_ours_at_once_is_not_offered_again(self) -> None:
        scene = Scene(zone("reject"))
        scene.stage.courier.outcome = lambda _: REFUSED_BY_DMARC
        assert (await scene.send(letter())).code == 550
        assert scene.foreseen["action"] == "rewrite"
        assert len(scene.stage.courier.messages) == 1

    async def test_what_is_out_when_we_are_stopped_at_the_second_offer_is_not_sent_again(self) -> None:
        scene = Scene(zone("reject", spf=False))
        courier = scene.stage.courier
        courier.outcome = lambda each: DELIVERED if each.destination.address.local == "other" else REFUSED_BY_DMARC
        hold_second_offer(courier)
        await stop_when(scene.send(signed(letter()), "<both@ours.example>"), courier, 2)
        assert [each.id for each in courier.untold] == [courier.messages[0].id]

    async def test_only_for_those_who_refused(self) -> None:
        scene = Scene(zone("reject", spf=False))
        stage = scene.stage
        busy = Outcome(Verdict.DEFERRED, Reply(450, "4.2.1", "busy"), "mx[192.0.2.9]:25", remote=True)

        def outcome(each: Delivery) -> Outcome:
            if each.destination.address.local == "other":
                return busy if b"via ours.example" in each.head else REFUSED_BY_DMARC
            return DELIVERED

        stage.courier.outcome = outcome
        assert (await scene.send(signed(letter()), "<both@ours.example>")).code == 250
        second = stage.courier.messages[1]
        assert [str(each.destination.address) for each in second.deliveries] == ["other@inbox.example"]
        ((kept, outcomes),) = stage.keeper.kept  # what is tried later is the message with a From of ours
        assert (kept.message.id, outcomes) == (second.id, [busy])


async def test_our_own_messages_are_signed_at_the_host_names_organisation() -> None:
    scene = Scene(zone())
    await scene.send(letter("Mail <postmaster@mx.ours.example>"))
    (plain,) = scene.stage.courier.messages
    (delivery,) = plain.deliveries
    bare = replace(plain, deliveries=(replace(delivery, head=b""),))
    own = sign_own(scene.stage.gateway, bare)
    octets = whole(own, own.deliveries[0])
    assert octets.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert dkim.DKIM(octets).verify(0, dnsfunc=scene._txt)
