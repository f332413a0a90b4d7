import pytest

from forwarder.model.reply import Class, Reply


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (Reply(250, "2.0.0", "OK"), "250 2.0.0 OK"),
        (Reply(354, "", "Go on"), "354 Go on"),
        (Reply(250, "", ""), "250"),
        (Reply(550, "5.1.1", "one\ntwo\nthree"), "550 5.1.1 one two three"),
    ],
)
def test_a_reply_is_one_line_in_a_log(reply: Reply, line: str) -> None:
    assert str(reply) == line


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (200, Class.SUCCESS),
        (299, Class.SUCCESS),
        (354, Class.CONTINUE),
        (421, Class.TEMPORARY),
        (550, Class.PERMANENT),
        (599, Class.PERMANENT),
        # Nothing that cannot be understood may lose a message: it is temporary.
        (0, Class.TEMPORARY),
        (150, Class.TEMPORARY),
        (600, Class.TEMPORARY),
        (999, Class.TEMPORARY),
        (-1, Class.TEMPORARY),
    ],
)
def test_the_first_digit_decides(code: int, kind: Class) -> None:
    reply = Reply(code, "", "text")
    assert reply.kind is kind
    assert reply.positive is (kind is Class.SUCCESS)
