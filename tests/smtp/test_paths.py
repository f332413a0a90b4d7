import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forwarder.model.address import Address
from forwarder.model.envelope import Body, MailOptions, RcptOptions
from forwarder.model.reply import Reply
from forwarder.smtp.paths import CommandError, MailCommand, RcptCommand, parse_helo, parse_mail, parse_rcpt

CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def refusal_of_mail(argument: bytes, *, smtputf8_allowed: bool = True) -> Reply:
    with pytest.raises(CommandError) as caught:
        parse_mail(argument, smtputf8_allowed=smtputf8_allowed)
    return caught.value.reply


def refusal_of_rcpt(argument: bytes, *, smtputf8: bool = False) -> Reply:
    with pytest.raises(CommandError) as caught:
        parse_rcpt(argument, smtputf8=smtputf8)
    return caught.value.reply


def codes(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced}"


@pytest.mark.parametrize(
    ("argument", "sender"),
    [
        (b"FROM:<a@b.example>", Address("a", "b.example")),
        (b"from:<a@b.example>", Address("a", "b.example")),
        (b"From:  <a@b.example>", Address("a", "b.example")),
        (b"FROM:<a@b.example> \t ", Address("a", "b.example")),
        (b"FROM:<>", None),
        (b"FROM: <>", None),
        (b"FROM:<A.B@EXAMPLE.org.>", Address("A.B", "example.org")),
        (b'FROM:<"a b"@c>', Address("a b", "c")),
        (b'FROM:<"a>b"@c>', Address("a>b", "c")),
        (rb'FROM:<"a\"<b\\"@c>', Address('a"<b\\', "c")),
        (b'FROM:<"plain"@c>', Address("plain", "c")),
        (b'FROM:<"u@o"@c>', Address("u@o", "c")),
        (b"FROM:<u%o@c>", Address("u%o", "c")),
        (b"FROM:<o!u@c>", Address("o!u", "c")),
        (b"FROM:<u@[192.0.2.1]>", Address("u", "[192.0.2.1]")),
        (b"FROM:<u@[ipv6:2001:DB8::0:1]>", Address("u", "[IPv6:2001:db8::1]")),
        (b"FROM:<u@xn--bcher-kva.example>", Address("u", "xn--bcher-kva.example")),
        (b"FROM:<" + b"v" * 65 + b"@c.example>", Address("v" * 65, "c.example")),
        (b"FROM:<" + b"v" * 252 + b"@c>", Address("v" * 252, "c")),
    ],
)
def test_a_sender_is_read(argument: bytes, sender: Address | None) -> None:
    assert parse_mail(argument) == MailCommand(sender, MailOptions())


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"", "501 5.5.4"),
        (b"<a@b>", "501 5.5.4"),
        (b"TO:<a@b>", "501 5.5.4"),
        (b"FROM <a@b>", "501 5.5.4"),
        (b"FROM :<a@b>", "501 5.5.4"),
        (b"FROM:", "501 5.1.7"),
        (b"FROM:a@b", "501 5.1.7"),
        (b"FROM:<a@b", "501 5.1.7"),
        (b"FROM:a@b>", "501 5.1.7"),
        (b"FROM:<<a@b>>", "501 5.1.7"),
        (b"FROM:<a@b>>", "501 5.5.2"),
        (b"FROM:<a@b>SIZE=1", "501 5.5.2"),
        (b"FROM:\t<a@b>", "501 5.5.2"),
        (b"FROM:<a>", "501 5.1.7"),
        (b"FROM:<@>", "501 5.1.7"),
        (b"FROM:<@b>", "501 5.1.7"),
        (b"FROM:<a@>", "501 5.1.7"),
        (b"FROM:< >", "501 5.1.7"),
        (b"FROM:<postmaster>", "501 5.1.7"),
        (b"FROM:<a @b>", "501 5.1.7"),
        (b"FROM:<a@b c>", "501 5.1.7"),
        (b"FROM:<a@ b>", "501 5.1.7"),
        (b"FROM:<(comment)a@b>", "501 5.1.7"),
        (b"FROM:<a@b(comment)>", "501 5.1.7"),
        (b"FROM:(comment)<a@b>", "501 5.1.7"),
        (b"FROM:Name <a@b>", "501 5.1.7"),
        (b'FROM:"Name" <a@b>', "501 5.1.7"),
        (b"FROM:<a@b>(comment)", "501 5.5.2"),
        (b"FROM:<=?utf-8?q?a@evil?= <a@b>>", "501 5.1.7"),
        (b"FROM:<=?utf-8?q?x?=@evil@b>", "501 5.1.7"),
        (b"FROM:<u@ours@o>", "501 5.1.7"),
        (b"FROM:<.a@b>", "501 5.1.7"),
        (b"FROM:<a.@b>", "501 5.1.7"),
        (b"FROM:<a..b@c>", "501 5.1.7"),
        (b"FROM:<a@b..c>", "501 5.1.7"),
        (b"FROM:<a@-b>", "501 5.1.7"),
        (b'FROM:<"a"b@c>', "501 5.1.7"),
        (b'FROM:<"a@c>', "501 5.1.7"),
        (b'FROM:<""@c>', "501 5.1.7"),
        (b"FROM:<u@[192.0.2.1>", "501 5.1.7"),
        (b"FROM:<u@[192.0.2.256]>", "501 5.1.7"),
        (b"FROM:<u@[::1]>", "501 5.1.7"),
        (b"FROM:<u@[IPv6:fe80::1%eth0]>", "501 5.1.7"),
        (b"FROM:<" + b"v" * 253 + b"@c>", "501 5.1.7"),
        (b'FROM:<"' + b"\\a" * 126 + b'"@c>', "501 5.1.7"),  # shorter once it is understood
        (b"FROM:<@" + b"a" * 60 + b",@b" * 64 + b":u@d>", "501 5.1.7"),
        (b"FROM:<a@b>\r\nRCPT TO:<c@d>", "501 5.5.2"),
        (b"FROM:<a\0@b>", "501 5.5.2"),
        (b"FROM:<a@b\0>", "501 5.5.2"),
        (b'FROM:<"a\r"@b>', "501 5.5.2"),
        (b'FROM:<"a\tb"@c>', "501 5.5.2"),
        (b'FROM:<"a\x7f"@c>', "501 5.5.2"),
        (b"FROM:<a@b> \x1b[2J", "501 5.5.2"),
    ],
)
def test_what_is_no_sender_is_refused(argument: bytes, expected: str) -> None:
    assert codes(refusal_of_mail(argument)) == expected


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"TO:<u@ours.example>", Address("u", "ours.example")),
        (b"to: <u@ours.example>", Address("u", "ours.example")),
        (b"TO:<Postmaster>", Address("postmaster", "")),
        (b"TO:<POSTMASTER>", Address("postmaster", "")),
        (b"TO:<Postmaster@Ours.example>", Address("Postmaster", "ours.example")),
    ],
)
def test_a_recipient_is_read(argument: bytes, address: Address) -> None:
    assert parse_rcpt(argument, smtputf8=False) == RcptCommand(address, RcptOptions())


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (b"TO:<>", "501 5.1.3"),
        (b"TO:u@ours", "501 5.1.3"),
        (b"TO:<u>", "501 5.1.3"),
        (b"TO:<postmaster@>", "501 5.1.3"),
        (b'TO:<"postmaster">', "501 5.1.3"),
        (b"TO:<u@ours(comment)>", "501 5.1.3"),
        (b"FROM:<u@ours>", "501 5.5.4"),
        (b"TO:<" + b"v" * 253 + b"@c>", "501 5.1.3"),
        (b'TO:<"evil@e.vil\r"@ours>', "501 5.5.2"),  # the header parser would send it to evil@e.vil
        (b"TO:<u\0@ours>", "501 5.5.2"),
        (b"TO:<=?utf-8?q?evil=40e.vil?=@ours@x>", "501 5.1.3"),
    ],
)
def test_what_is_no_recipient_is_refused(argument: bytes, expected: str) -> None:
    assert codes(refusal_of_rcpt(argument)) == expected


def test_an_encoded_word_is_just_a_local_part() -> None:
    command = parse_rcpt(b"TO:<=?utf-8?q?evil=40e.vil?=@ours>", smtputf8=False)
    assert command.address == Address("=?utf-8?q?evil=40e.vil?=", "ours")


@pytest.mark.parametrize(
    ("path", "address"),
    [
        (b"@ours:u@other", Address("u", "other")),
        (b"@a.example,@b.example:u@d", Address("u", "d")),
        (b"@[192.0.2.1],@[IPv6:::1]:u@d", Address("u", "d")),
        (b'@a:"x:@y"@d', Address("x:@y", "d")),
    ],
)
def test_a_source_route_is_ignored(path: bytes, address: Address) -> None:
    assert parse_rcpt(b"TO:<" + path + b">", smtputf8=False).address == address
    assert parse_mail(b"FROM:<" + path + b">").sender == address


@pytest.mark.parametrize(
    "path",
    [b"@a u@d", b"@a:", b"@:u@d", b"@a,b:u@d", b"@a,:u@d", b"@a;@b:u@d", b"@a:@b:u@d", b"@-a:u@d", b"@a:postmaster"],
)
def test_a_malformed_source_route_is_refused(path: bytes) -> None:
    assert codes(refusal_of_rcpt(b"TO:<" + path + b">")) == "501 5.1.3"


class TestBeyondAscii:
    def test_needs_smtputf8(self) -> None:
        for path in ("é@b", "a@bücher.example"):
            assert codes(refusal_of_mail(f"FROM:<{path}>".encode())) == "553 5.6.7"
            assert codes(refusal_of_rcpt(f"TO:<{path}>".encode())) == "553 5.6.7"

    def test_is_read_with_smtputf8(self) -> None:
        mail = parse_mail("FROM:<é@BÜCHER.example> SMTPUTF8".encode())
        assert mail == MailCommand(Address("é", "xn--bcher-kva.example"), MailOptions(smtputf8=True))
        rcpt = parse_rcpt("TO:<é@bücher.example>".encode(), smtputf8=True)
        assert rcpt.address == Address("é", "xn--bcher-kva.example")

    @pytest.mark.parametrize("octets", [b"\xff", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
    def test_must_be_utf8(self, octets: bytes) -> None:
        assert codes(refusal_of_mail(b"FROM:<" + octets + b"@b> SMTPUTF8")) == "553 5.6.7"
        assert codes(refusal_of_rcpt(b"TO:<a@" + octets + b">", smtputf8=True)) == "553 5.6.7"
        assert codes(refusal_of_rcpt(b"TO:<" + octets + b"@b>")) == "553 5.6.7"

    @pytest.mark.parametrize("character", ["\x85", "\x9b", "\u2028", "\ufeff"])
    def test_has_no_controls(self, character: str) -> None:
        assert codes(refusal_of_rcpt(f"TO:<a{character}@b>".encode(), smtputf8=True)) == "501 5.1.3"

    def test_a_homograph_is_not_mapped(self) -> None:
        assert codes(refusal_of_rcpt("TO:<a@\u212aent.example>".encode(), smtputf8=True)) == "501 5.1.3"

    def test_is_unknown_where_it_was_not_offered(self) -> None:
        assert codes(refusal_of_mail(b"FROM:<a@b> SMTPUTF8", smtputf8_allowed=False)) == "555 5.5.4"


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        (b"SIZE=0", MailOptions()),
        (b"size=12345", MailOptions(size=12345)),
        (b"SIZE=99999999999999999999", MailOptions(size=99999999999999999999)),
        (b"BODY=7bit", MailOptions()),
        (b"Body=8BitMime", MailOptions(body=Body.EIGHT_BIT)),
        (b"smtputf8", MailOptions(smtputf8=True)),
        (b"RET=full", MailOptions(ret="FULL")),
        (b"RET=HDRS", MailOptions(ret="HDRS")),
        (b"ENVID=QQ314159+2B", MailOptions(envid="QQ314159+2B")),
        (b"ENVID=" + b"x" * 100, MailOptions(envid="x" * 100)),
        (
            b"SIZE=1  BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a",
            MailOptions(1, Body.EIGHT_BIT, smtputf8=True, ret="HDRS", envid="a"),
        ),
    ],
)
def test_parameters_of_mail_are_read(parameters: bytes, options: MailOptions) -> None:
    assert parse_mail(b"FROM:<> " + parameters) == MailCommand(None, options)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("SIZE", "501 5.5.4"),
        ("SIZE=", "501 5.5.4"),
        ("SIZE=²", "501 5.5.4"),
        ("SIZE=٣", "501 5.5.4"),
        ("SIZE=1_000", "501 5.5.4"),
        ("SIZE=+1", "501 5.5.4"),
        ("SIZE=-1", "501 5.5.4"),
        ("SIZE=1e3", "501 5.5.4"),
        ("SIZE=" + "9" * 21, "501 5.5.4"),
        ("SIZE=1 SIZE=1", "501 5.5.4"),
        ("SIZE=1 size=2", "501 5.5.4"),
        ("BODY", "501 5.5.4"),
        ("BODY=BINARYMIME", "501 5.5.4"),
        ("BODY=7BıT", "501 5.5.4"),
        ("SMTPUTF8=yes", "501 5.5.4"),
        ("SMTPUTF8=", "501 5.5.4"),
        ("RET=ALL", "501 5.5.4"),
        ("RET=HDRſ", "501 5.5.4"),
        ("ENVID=" + "x" * 101, "501 5.5.4"),
        ("ENVID=a=b", "501 5.5.4"),
        ("ENVID=a+b", "501 5.5.4"),
        ("ENVID=a+0D+0Ab", "501 5.5.4"),
        ("ENVID=a+7F", "501 5.5.4"),
        ("ENVID=é", "501 5.5.4"),
        ("=x", "501 5.5.4"),
        ("-X=1", "501 5.5.4"),
        ("S\u0130ZE=1", "501 5.5.4"),
        ("AUTH=<>", "555 5.5.4"),
        ("NOTIFY=NEVER", "555 5.5.4"),
        ("X-WHATEVER", "555 5.5.4"),
        ("XFOO=<a@b>", "555 5.5.4"),
    ],
)
def test_wrong_parameters_of_mail_are_refused(parameters: str, expected: str) -> None:
    assert codes(refusal_of_mail(b"FROM:<> " + parameters.encode())) == expected
    assert codes(refusal_of_mail(b"FROM:<a@b> " + parameters.encode())) == expected


def test_parameters_must_be_utf8() -> None:
    assert codes(refusal_of_mail(b"FROM:<> ENVID=\xff")) == "501 5.5.4"


def test_the_unknown_parameter_is_named_and_cut() -> None:
    assert "AUTH" in refusal_of_mail(b"FROM:<> auth=<>").text
    assert len(refusal_of_mail(b"FROM:<> " + b"x" * 2000).text) < 100


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ("NOTIFY=never", RcptOptions(frozenset({"NEVER"}))),
        ("NOTIFY=Success,Delay", RcptOptions(frozenset({"SUCCESS", "DELAY"}))),
        ("NOTIFY=FAILURE,FAILURE", RcptOptions(frozenset({"FAILURE"}))),
        ("orcpt=rfc822;Bob+2Bx@example.com", RcptOptions(orcpt="rfc822;Bob+2Bx@example.com")),
        (r"ORCPT=utf-8;\x{E9}@b", RcptOptions(orcpt=r"utf-8;\x{E9}@b")),
        ("ORCPT=UTF-8;é@b", RcptOptions(orcpt="UTF-8;é@b")),
        ("ORCPT=rfc822;" + "x" * 493, RcptOptions(orcpt="rfc822;" + "x" * 493)),
        ("NOTIFY=DELAY ORCPT=x400;a", RcptOptions(frozenset({"DELAY"}), "x400;a")),
    ],
)
def test_parameters_of_rcpt_are_read(parameters: str, options: RcptOptions) -> None:
    assert parse_rcpt(b"TO:<u@d> " + parameters.encode(), smtputf8=True).options == options


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("NOTIFY", "501 5.5.4"),
        ("NOTIFY=", "501 5.5.4"),
        ("NOTIFY=SUCCESS,NEVER", "501 5.5.4"),
        ("NOTIFY=SUCCESS,", "501 5.5.4"),
        ("NOTIFY=ALWAYS", "501 5.5.4"),
        ("NOTIFY=ſUCCEſſ", "501 5.5.4"),
        ("NOTIFY=DELAY NOTIFY=DELAY", "501 5.5.4"),
        ("ORCPT=a@b", "501 5.5.4"),
        ("ORCPT=;a@b", "501 5.5.4"),
        ("ORCPT=rfc822;", "501 5.5.4"),
        ("ORCPT=rfc822;a+0D+0Ab", "501 5.5.4"),
        ("ORCPT=rfc822;a=b", "501 5.5.4"),
        ("ORCPT=rfc822;é@b", "501 5.5.4"),
        ("ORCPT=utf-8;é\u2028@b", "501 5.5.4"),
        ("ORCPT=rfc822;" + "x" * 494, "501 5.5.4"),
        ("ORCPT=utf-8;" + "é" * 248, "501 5.5.4"),
        ("SIZE=1", "555 5.5.4"),
        ("SMTPUTF8", "555 5.5.4"),
    ],
)
def test_wrong_parameters_of_rcpt_are_refused(parameters: str, expected: str) -> None:
    assert codes(refusal_of_rcpt(b"TO:<u@d> " + parameters.encode(), smtputf8=True)) == expected


def test_a_wide_orcpt_needs_smtputf8() -> None:
    assert codes(refusal_of_rcpt("TO:<u@d> ORCPT=utf-8;é@b".encode())) == "501 5.5.4"


class TestHelo:
    @pytest.mark.parametrize(
        "name",
        ["mx.example.org", "MY_PC", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]", "192.0.2.1", "a.", "x" * 255],
    )
    @pytest.mark.parametrize("extended", [True, False])
    def test_a_name_is_read(self, name: str, extended: bool) -> None:
        assert parse_helo(b" " + name.encode() + b" \t", extended=extended) == name

    @pytest.mark.parametrize(
        "argument",
        [
            b"a b",
            b"a\rb",
            b"a\nb",
            b"a\x1b[2J",
            b"a\0",
            b"a\tb",
            b"\x7f",
            b"\xff",
            "é.example".encode(),
            b"(comment)",
            b"a;b",
            b"a(b",
            b"a<b>",
            b'"a"',
            b"a\\",
            b"a,b",
            b"a@b",
            b"[a",
            b"a]",
            b"[]",
            b"[a]b",
            b"x" * 256,
        ],
    )
    def test_what_could_alter_received_is_refused(self, argument: bytes) -> None:
        with pytest.raises(CommandError) as caught:
            parse_helo(argument, extended=True)
        assert codes(caught.value.reply) == "501 5.5.2"

    @pytest.mark.parametrize(("extended", "verb"), [(True, "EHLO"), (False, "HELO")])
    def test_a_name_is_needed(self, extended: bool, verb: str) -> None:
        with pytest.raises(CommandError) as caught:
            parse_helo(b"  ", extended=extended)
        assert caught.value.reply == Reply(501, "5.5.4", f"Syntax: {verb} hostname")

    @given(st.binary(max_size=300))
    def test_any_octets_give_a_safe_word_or_a_refusal(self, argument: bytes) -> None:
        try:
            name = parse_helo(argument, extended=True)
        except CommandError as error:
            assert_is_refusal(error.reply)
        else:
            assert name.isascii()
            assert not re.search(r"[\x00-\x20\x7f()<>;,\"\\@]", name)


PIECES = st.sampled_from(
    (
        b'a @ < > : , " \\ . [ ] = + ; \r \n \0 \xc3 \xa9 FROM: TO: SIZE= BODY=8BITMIME SMTPUTF8 NOTIFY= ORCPT=rfc822;'
        b" ENVID= IPv6: <a@b> postmaster 192.0.2.1 \xe2\x80\xa8 xn--"
    ).split(b" ")
) | st.just(b" ")
HOSTILE = st.binary(max_size=400) | st.lists(PIECES, max_size=40).map(b"".join)


def assert_is_refusal(reply: Reply) -> None:
    assert reply.code in (501, 553, 555)
    assert reply.enhanced.startswith("5.")
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert len(reply.text) < 120


def assert_is_mailbox(address: Address) -> None:
    assert not CONTROLS.search(str(address))
    assert parse_rcpt(f"TO:<{address}>".encode(), smtputf8=True).address == address


@given(HOSTILE, st.booleans(), st.booleans())
@example(b'"' * 300, True, True)
def test_any_octets_give_mail_or_a_refusal(argument: bytes, prefixed: bool, allowed: bool) -> None:
    try:
        command = parse_mail(b"FROM:<" * prefixed + argument, smtputf8_allowed=allowed)
    except CommandError as error:
        assert_is_refusal(error.reply)
    else:
        if command.sender:
            assert_is_mailbox(command.sender)
            assert command.options.smtputf8 or command.sender.is_ascii
        assert command.options.envid.isascii()
        assert not CONTROLS.search(command.options.envid)


@given(HOSTILE, st.booleans(), st.booleans())
def test_any_octets_give_rcpt_or_a_refusal(argument: bytes, prefixed: bool, smtputf8: bool) -> None:
    try:
        command = parse_rcpt(b"TO:<" * prefixed + argument, smtputf8=smtputf8)
    except CommandError as error:
        assert_is_refusal(error.reply)
    else:
        assert_is_mailbox(command.address)
        assert smtputf8 or command.address.is_ascii
        assert not CONTROLS.search(command.options.orcpt)


@given(
    st.text(
        st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1, max_size=60
    )
)
def test_any_local_part_can_be_written_and_read(local: str) -> None:
    quoted = "".join(c if c.isascii() and c not in '"\\' else f"\\{c}" if c.isascii() else c for c in local)
    command = parse_rcpt(f'TO:<"{quoted}"@d>'.encode(), smtputf8=True)
    assert command.address == Address(local, "d")
    assert_is_mailbox(command.address)


@pytest.mark.parametrize(
    "argument",
    [
        b"FROM:<" + b'"a' * 1_000_000,
        b"FROM:<" + b'""' * 1_000_000,
        b"FROM:<" + b'"' + b"\\a" * 1_000_000,
        b"FROM:" + b" " * 2_000_000,
        b"FROM:<@" + b"a,@" * 700_000 + b">",
        b"FROM:<>" + b" " * 2_000_000 + b"x",
        b"FROM:<> ENVID=" + b"+2B" * 700_000,
        b"FROM:<> SIZE=" + b"9" * 2_000_000,
        b"FROM:<> " + b"a" * 2_000_000 + b"_",
        b"FROM:<> " + b"SIZE " * 400_000,
    ],
)
@pytest.mark.timeout(10)
def test_two_million_octets_are_refused_in_linear_time(argument: bytes) -> None:
    assert_is_refusal(refusal_of_mail(argument))
