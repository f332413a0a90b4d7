import base64
import hashlib
import hmac

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from forwarder.model.address import MAX_MAILBOX, Address, AddressError, parse_mailbox
from forwarder.rewrite import srs as module
from forwarder.rewrite.srs import MAX_AGE_LIMIT, TAG_LENGTH, Srs, SrsError

SECRET = b"the first secret"
DAY = 20_779
SRS = Srs("fwd.example.org", [SECRET], 21)


def encode(text: str, srs: Srs = SRS, day: int = DAY) -> Address:
    return srs.encode(parse_mailbox(text), day)


def lowered(address: Address) -> Address:
    return parse_mailbox(str(address).lower())


def refused(address: Address, day: int = DAY, srs: Srs = SRS) -> str:
    with pytest.raises(SrsError) as caught:
        srs.decode(address, day)
    assert str(caught.value)
    return str(caught.value)


class TestSrs0:
    def test_has_the_known_form_and_a_tag_anybody_can_compute(self) -> None:
        material = b"\0".join((b"SRS0", b"JL", b"B.EXAMPLE", b"alice"))
        tag = base64.b32encode(hmac.new(SECRET, material, hashlib.sha256).digest())[:8].decode()
        assert str(encode("Alice@B.example")) == f"SRS0={tag}=JL=b.example=Alice@fwd.example.org"

    @pytest.mark.parametrize(
        "text",
        [
            "alice@b.example",
            "Alice.B+tag@b.example",
            "a=b=c@b.example",
            '"a b"@b.example',
            r'"a\"b\\"@b.example',
            '"a@b"@b.example',
            '".dots."@b.example',
            "é@b.example",
            "u@bücher.example",
            "u@[192.0.2.1]",
            "u@[IPv6:2001:db8::1]",
            "bounces+SRS=x=y@outlook.example",
            "=@b.example",
            "v" * 100 + "@b.example",
        ],
    )
    def test_leads_back(self, text: str) -> None:
        made = encode(text)
        assert made.domain == "fwd.example.org"
        assert made.local.startswith("SRS0=")
        assert SRS.is_ours(made)
        assert SRS.decode(made, DAY) == parse_mailbox(text)
        assert SRS.decode(parse_mailbox(str(made)), DAY) == parse_mailbox(text)

    @pytest.mark.parametrize("separator", ["=", "+", "-"])
    def test_any_first_separator_is_understood(self, separator: str) -> None:
        made = encode("a@b.example", Srs("fwd.example.org", [SECRET], 21, separator))
        assert made.local[4] == separator
        assert SRS.decode(made, DAY) == Address("a", "b.example")

    @pytest.mark.parametrize(
        "local", ["SRS0", "SRS0foo", "SRS0=", "SRS0=a=b=c", "SRS0=a=b=c=", "SRS0=a==c=d", "SRS2=a=b=c=d"]
    )
    def test_what_only_resembles_srs0_is_a_plain_sender(self, local: str) -> None:
        made = SRS.encode(Address(local, "hop.example"), DAY)
        assert made.local.startswith("SRS0=")
        assert made.local.endswith(f"=hop.example={local}")
        assert SRS.decode(made, DAY) == Address(local, "hop.example")

    @pytest.mark.parametrize(
        "local",
        ["SRS1=", "SRS1=x=hop", "SRS1=x=hop=y", "SRS1==hop==a=b=c=d", "SRS1=x=-bad-==a=b=c=d", "SRS1=x=hop==a=b=c"],
    )
    def test_what_only_resembles_srs1_is_a_plain_sender(self, local: str) -> None:
        made = SRS.encode(Address(local, "two.example"), DAY)
        assert made.local.endswith(f"=two.example={local}")
        assert SRS.decode(made, DAY) == Address(local, "two.example")


class TestSrs1:
    @pytest.mark.parametrize("separator", ["=", "+", "-"])
    def test_keeps_what_another_forwarder_made(self, separator: str) -> None:
        sender = Address(f"SRS0{separator}vBe/=a2=b.example=Alice", "hop.example")
        made = SRS.encode(sender, DAY)
        assert made.local.startswith("SRS1=")
        assert made.local.endswith(f"=hop.example={separator}vBe/=a2=b.example=Alice")
        assert SRS.decode(made, DAY) == sender

    def test_of_another_forwarder_points_to_the_first_hop(self) -> None:
        made = encode("SRS1=XX=hop.example==aa=bb=b.example=Alice@two.example")
        assert made == encode("SRS0=aa=bb=b.example=Alice@hop.example")
        assert SRS.decode(made, DAY) == Address("SRS0=aa=bb=b.example=Alice", "hop.example")

    def test_a_long_chain_does_not_grow(self) -> None:
        hops = [Srs(f"hop{number}.example", [bytes([number + 1])], 21) for number in range(9)]
        sender = Address("alice", "b.example")
        chain = [sender := hop.encode(sender, DAY) for hop in hops]
        assert len({len(str(address)) for address in chain[1:]}) == 1
        first = hops[-1].decode(chain[-1], DAY)
        assert first == chain[0]
        assert hops[0].decode(first, DAY) == Address("alice", "b.example")

    def test_ages_like_srs0(self) -> None:
        made = encode("SRS0=aa=bb=b.example=Alice@hop.example")
        assert SRS.decode(made, DAY + 21) == Address("SRS0=aa=bb=b.example=Alice", "hop.example")
        assert "expired" in refused(made, DAY + 22)

    def test_a_tag_of_one_kind_is_none_of_the_other(self) -> None:
        made = encode("SRS0=aa=bb=b.example=Alice@hop.example")
        tag, stamp = made.local[5:13], made.local[13:15]
        assert "not genuine" in refused(Address(f"SRS0={tag}={stamp}=hop.example==aa=bb=b.example=Alice", made.domain))


class TestOurOwn:
    def test_a_genuine_one_passes_unchanged(self) -> None:
        made = encode("alice@b.example")
        assert SRS.encode(made, DAY + 3) == made
        foreign = encode("SRS0=aa=bb=b.example=Alice@hop.example")
        assert SRS.encode(foreign, DAY) == foreign

    def test_a_plain_sender_at_our_domain_is_a_stranger(self) -> None:
        encoded = SRS.encode(Address("postmaster", SRS.domain), DAY)
        assert encoded.local.startswith("SRS0=")
        assert SRS.decode(encoded, DAY) == Address("postmaster", SRS.domain)

    @pytest.mark.parametrize("local", ["SRS0=AAAAAAAA=JL=b.example=alice", "SRS0=x", "SRS1=AAAAAAAAJL=hop==a=b=c=d"])
    def test_a_forged_one_is_refused(self, local: str) -> None:
        with pytest.raises(SrsError):
            SRS.encode(Address(local, "fwd.example.org"), DAY)

    def test_an_old_one_is_refused(self) -> None:
        with pytest.raises(SrsError, match="expired"):
            SRS.encode(encode("alice@b.example"), DAY + 22)

    def test_one_that_another_forwarder_wrapped_is_unwrapped(self) -> None:
        made = encode("alice@b.example")
        assert SRS.encode(Srs("two.example", [b"other"], 21).encode(made, DAY), DAY) == made

    def test_a_forged_one_that_another_forwarder_wrapped_is_refused(self) -> None:
        with pytest.raises(SrsError, match="genuine"):
            encode("SRS1=XX=fwd.example.org==AAAAAAAA=JL=b.example=alice@two.example")

    def test_is_told_by_domain_and_prefix(self) -> None:
        for local in ("SRS0=x", "srs0+x", "SRS1-x", "sRs1=x=y==z"):
            assert SRS.is_ours(Address(local, "fwd.example.org"))
            assert not SRS.is_ours(Address(local, "other.example"))
        for local in ("SRS0", "SRS0=", "SRS2=x", "xSRS0=x", "SRS0_x", "ſRS0=x", "alice"):
            assert not SRS.is_ours(Address(local, "fwd.example.org"))


class TestAge:
    @pytest.mark.parametrize("day", [0, 5, 1023, 1024, DAY])
    def test_is_counted_over_the_turn_of_the_stamp(self, day: int) -> None:
        made = encode("a@b.example", day=day)
        for age in (-1, 0, 1, 21):
            assert SRS.age(made, day + age) == age
            assert SRS.decode(made, day + age) == Address("a", "b.example")

    def test_over_the_limit_is_stale(self) -> None:
        made = encode("a@b.example")
        assert "expired" in refused(made, DAY + 22)
        assert "expired" in refused(made, DAY + 512)

    def test_more_than_a_day_ahead_is_refused(self) -> None:
        made = encode("a@b.example")
        assert "future" in refused(made, DAY - 2)
        assert "future" in refused(made, DAY - 500)

    def test_cannot_be_told_of_what_has_no_day(self) -> None:
        for local in ("SRS0=TAG=1A=b=a", "SRS0=TAG=A=b=a", "SRS0=TAG=AAA=b=a", "SRS0=TAG=ıA=b=a", "SRS0=x", "alice"):
            with pytest.raises(SrsError):
                SRS.age(Address(local, "fwd.example.org"), DAY)


class TestSecrets:
    def test_the_first_signs_and_all_verify(self) -> None:
        old, new, both = (Srs("fwd.example.org", keys, 21) for keys in ([b"old"], [b"new"], [b"new", b"old"]))
        made = encode("a@b.example", old)
        assert both.decode(made, DAY) == Address("a", "b.example")
        assert encode("a@b.example", both) == encode("a@b.example", new)
        assert "not genuine" in refused(made, srs=new)

    def test_each_is_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = encode("a@b.example", Srs("fwd.example.org", [b"one"], 21))
        seen: list[int] = []
        compare = hmac.compare_digest

        def watch(supplied: bytes, expected: bytes) -> bool:
            seen.append(len(expected))
            return compare(supplied, expected)

        monkeypatch.setattr(hmac, "compare_digest", watch)
        Srs("fwd.example.org", [b"one", b"two", b"three"], 21).decode(made, DAY)
        assert seen == [TAG_LENGTH] * 3

    @pytest.mark.parametrize("length", [*range(TAG_LENGTH), TAG_LENGTH + 1, TAG_LENGTH + 2, 52])
    def test_a_tag_of_another_length_is_refused(self, length: int) -> None:
        material = b"\0".join((b"SRS0", b"JL", b"B.EXAMPLE", b"a"))
        whole = base64.b32encode(hmac.new(SECRET, material, hashlib.sha256).digest()).decode()
        assert SRS.decode(Address(f"SRS0={whole[:TAG_LENGTH]}=JL=b.example=a", "fwd.example.org"), DAY)
        assert "not genuine" in refused(Address(f"SRS0={whole[:length]}=JL=b.example=a", "fwd.example.org"))

    def test_letters_that_only_turn_into_ascii_by_case_are_no_tag(self) -> None:
        tags = [encode(f"{number}@b.example") for number in range(40)]
        for letter, alike in (("S", "\u017f"), ("I", "\u0131")):
            made = next(address for address in tags if letter in address.local[5:13])
            altered = made.local[:5] + made.local[5:13].replace(letter, alike) + made.local[13:]
            assert altered.upper() == made.local.upper()
            assert "not genuine" in refused(Address(altered, made.domain))

    def test_the_tag_has_at_least_eight_characters(self) -> None:
        assert len(encode("a@b.example").local.split("=")[1]) == TAG_LENGTH >= 8


@pytest.mark.parametrize(
    ("secrets", "age", "separator"),
    [
        ([], 21, "="),
        ([b""], 21, "="),
        ([b"x", b""], 21, "="),
        ([b"x"], 0, "="),
        ([b"x"], MAX_AGE_LIMIT + 1, "="),
        ([b"x"], 21, "."),
        ([b"x"], 21, ""),
    ],
)
def test_wrong_settings_are_refused(secrets: list[bytes], age: int, separator: str) -> None:
    with pytest.raises(ValueError, match="SRS"):
        Srs("fwd.example.org", secrets, age, separator)


class TestRefusals:
    def test_of_an_overlong_sender(self) -> None:
        room = MAX_MAILBOX - len("SRS0=AAAAAAAA=JL=b.example=@fwd.example.org")
        made = encode("v" * room + "@b.example")
        assert len(str(made)) == MAX_MAILBOX
        assert SRS.decode(made, DAY).local == "v" * room
        with pytest.raises(SrsError, match="254"):
            encode("v" * (room + 1) + "@b.example")

    @pytest.mark.parametrize(
        "sender",
        [Address("postmaster", ""), Address("", "b"), Address("a\r\nb", "b"), Address("a\0", "b"), Address("a", "b=c")],
    )
    def test_of_what_is_no_mailbox(self, sender: Address) -> None:
        with pytest.raises(SrsError):
            SRS.encode(sender, DAY)

    def test_of_a_signed_address_that_is_none(self) -> None:
        for kind, host, rest in (
            ("SRS0", "b", "a\r\nb"),
            ("SRS0", "b\r\nc", "a"),
            ("SRS0", "b c", "a"),
            ("SRS1", "b", "=\0"),
        ):
            tag = module._tag(SECRET, kind, "JL", host, rest).decode()
            local = f"{kind}={tag}{'=' if kind == 'SRS0' else ''}JL={host}={rest}"
            assert "genuine" not in refused(Address(local, "fwd.example.org"))

    def test_of_what_is_not_ours(self) -> None:
        made = encode("a@b.example")
        assert "not an SRS address of ours" in refused(Address(made.local, "other.example"))
        assert "not an SRS address of ours" in refused(Address("alice", "fwd.example.org"))

    def test_of_fields_that_were_moved(self) -> None:
        made = encode("b=c@a.example")
        assert "not genuine" in refused(Address(made.local.replace("a.example=b=c", "a.example=b==c"), made.domain))
        forth = encode("x@a.example")
        assert "not genuine" in refused(Address(forth.local.replace("=a.example=", "=a.exampl=e"), forth.domain))


DOMAINS = st.from_regex(r"[a-z0-9]{1,12}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True) | st.sampled_from(
    ["[192.0.2.1]", "[IPv6:2001:db8::1]", "xn--bcher-kva.example"]
)
PLAIN = st.from_regex(r"[A-Za-z0-9=+_-]{1,20}(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}){0,2}", fullmatch=True)
QUOTED = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)
WIDE = st.text(
    st.characters(min_codepoint=0xA0, exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"),
    min_size=1,
    max_size=20,
)
FOREIGN = st.builds(
    "{}{}{}={}={}={}".format,
    st.sampled_from(["SRS0", "srs0"]),
    st.sampled_from("=+-"),
    st.from_regex(r"[A-Za-z0-9+/]{4}", fullmatch=True),
    st.from_regex(r"[A-Z2-7]{2}", fullmatch=True),
    st.sampled_from(["b.example", "xn--bcher-kva.example"]),
    PLAIN,
)
SENDERS = st.builds(Address, PLAIN | QUOTED | WIDE | FOREIGN, DOMAINS)
DAYS = st.integers(0, 100_000)


@given(SENDERS, DAYS, st.integers(-1, 21))
def test_every_sender_leads_back(sender: Address, day: int, age: int) -> None:
    made = SRS.encode(sender, day)
    assert parse_mailbox(str(made)) == made
    back = SRS.decode(made, day + age)
    assert back.key == sender.key
    if not sender.local.startswith("srs0"):
        assert back == sender


@given(SENDERS, DAYS)
def test_every_sender_leads_back_over_hops_that_fold_case(sender: Address, day: int) -> None:
    for text in (str(SRS.encode(sender, day)).lower(), str(SRS.encode(sender, day)).swapcase()):
        try:
            folded = parse_mailbox(text)
        except AddressError:  # swapcase makes one letter into several
            assume(False)
        if folded.local.lower() == SRS.encode(sender, day).local.lower():
            assert SRS.decode(folded, day).key == parse_mailbox(str(sender).lower()).key


@given(SENDERS, st.data())
def test_every_altered_character_is_refused(sender: Address, data: st.DataObject) -> None:
    made = SRS.encode(sender, DAY)
    place = data.draw(st.integers(5, len(made.local) - 1))
    cut = data.draw(st.integers(0, 1))
    put = data.draw(st.text(max_size=2) | st.sampled_from(["=", "A", "a", "ı", "ſ", "\u212a", ""]))
    local = made.local[:place] + put + made.local[place + cut :]
    assume(local.lower() != made.local.lower())
    refused(Address(local, made.domain))


@given(
    st.text(max_size=80),
    st.sampled_from(["fwd.example.org", "b.example", "", "\r\n", "[::1]"]) | st.text(max_size=10),
    DAYS,
)
def test_any_text_gives_an_address_or_a_refusal(local: str, domain: str, day: int) -> None:
    for text in (local, f"SRS0={local}", f"SRS1={local}", f"SRS0=AAAAAAAA=AA={local}"):
        for act in (SRS.encode, SRS.decode):
            try:
                result = act(Address(text, domain), day)
            except SrsError as error:
                assert str(error)
            else:
                assert not set(str(result)) & set("\r\n\0")
                assert parse_mailbox(str(result)) == result


@given(st.binary(min_size=1), st.text(st.sampled_from("\r\n\0=@ aSR01é\ud800"), max_size=12), st.text(max_size=6))
def test_nothing_is_injected_even_with_a_genuine_tag(secret: bytes, rest: str, host: str) -> None:
    srs = Srs("fwd.example.org", [secret], 21)
    for kind, join in (("SRS0", "="), ("SRS1", "")):
        tag = module._tag(secret, kind, "JL", host, rest).decode()
        try:
            result = srs.decode(Address(f"{kind}={tag}{join}JL={host}={rest}", "fwd.example.org"), DAY)
        except SrsError:
            continue
        assert not set(str(result)) & set("\r\n\0")
        assert parse_mailbox(str(result)) == result


@pytest.mark.timeout(10)
def test_two_million_octets_are_refused_in_linear_time() -> None:
    for local in ("SRS0=" + "=" * 2_000_000, "SRS1=" + "a=" * 1_000_000, "SRS0=" + "a" * 2_000_000, "S" * 2_000_000):
        refused(Address(local, "fwd.example.org"))
        with pytest.raises(SrsError):
            SRS.encode(Address(local, "hop.example"), DAY)
