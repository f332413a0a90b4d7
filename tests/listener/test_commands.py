"""Command lines: verbs, arguments, refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.listener.commands import BARE_LF, NOT_HTTP, Command, read_command, refusal
from forwarder.model.reply import Reply


@pytest.mark.parametrize(
    ("line", "verb", "argument"),
    [
        (b"NOOP\r\n", b"NOOP", b""),
        (b"mail FROM:<a@b>\r\n", b"MAIL", b"FROM:<a@b>"),
        (b"MaIl  FROM:<a@b>  \r\n", b"MAIL", b"FROM:<a@b>"),
        (b"RCPT TO:<a@b>\t\r\n", b"RCPT", b"TO:<a@b>"),
        (b"EHLO x \t \t\r\n", b"EHLO", b"x"),
        (b"NOOP\t\r\n", b"NOOP", b""),
        (b"NOOP \t\r\n", b"NOOP", b""),
        (b"VRFY \xc3\xa9\r\n", b"VRFY", b"\xc3\xa9"),
        (b"\xff\r\n", b"\xff", b""),
    ],
)
def test_commands(line: bytes, verb: bytes, argument: bytes) -> None:
    assert read_command(line) == Command(verb, argument)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"\r\n", "500 5.5.2"),
        (b" NOOP\r\n", "500 5.5.2"),
        (b"NO\0OP\r\n", "500 5.5.2"),
        (b"\t\r\n", "500 5.5.2"),
        (b" \t \r\n", "500 5.5.2"),
        (b"NO\tOP\r\n", "500 5.5.2"),
        (b"NOOP\v\r\n", "500 5.5.2"),
        (b"NOOP a\tb\r\n", "501 5.5.2"),
        (b"NOOP \x1b\r\n", "501 5.5.2"),
        (b"NOOP \x1b\t\r\n", "501 5.5.2"),
        (b"NOOP \r\r\n", "501 5.5.2"),
        (b"NOOP \x7f\r\n", "501 5.5.2"),
    ],
)
def test_lines_that_are_none(line: bytes, code: str) -> None:
    reply = read_command(line)
    assert isinstance(reply, Reply)
    assert f"{reply.code} {reply.enhanced}" == code
    assert not reply.close


@pytest.mark.parametrize("line", [b"NOOP\n", b"\n", b"NOOP\r\r\r \n"])
def test_row_03_a_lone_lf_ends_the_session(line: bytes) -> None:
    assert read_command(line) is BARE_LF
    assert BARE_LF.close


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"connect x:25\r\n", b"POST\r\n"])
def test_row_05_http_ends_the_session(line: bytes) -> None:
    assert read_command(line) is NOT_HTTP
    assert NOT_HTTP.close


@pytest.mark.parametrize("verb", [b"EXPN", b"TURN", b"SEND", b"SOML", b"SAML", b"ETRN", b"ATRN"])
def test_verbs_that_are_not_done_are_refused_by_name(verb: bytes) -> None:
    reply = refusal(verb)
    assert (reply.code, reply.enhanced, reply.close) == (502, "5.5.1", False)
    assert verb.decode() in reply.text


def test_row_22_bdat_ends_the_session() -> None:
    assert (refusal(b"BDAT").code, refusal(b"BDAT").close) == (502, True)


def test_unknown_verbs() -> None:
    assert (refusal(b"XYZZY").code, refusal(b"XYZZY").close) == (500, False)


@given(st.binary(max_size=200))
def test_any_line(line: bytes) -> None:
    command = read_command(line + b"\n")
    if isinstance(command, Command):
        assert command.verb == command.verb.upper() != b""
        assert not any(octet < 32 or octet == 127 for octet in command.verb + command.argument)
