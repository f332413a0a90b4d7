"""Who is believed about a message that was changed on its way, and what does not count as their word."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.trust import vouched_by
from tests.auth.arc.sealer import chain, result, seal

SEALER = "relay.test"
TRUSTED = frozenset({SEALER, "other.test"})
GOOD = ArcResult(
    ArcStatus.PASS,
    1,
    sealer=SEALER,
    authentication_results=b"relay.test; dmarc=pass header.from=a.test",
    from_signed=True,
)

GENUINE = (
    b"relay.test; dmarc=pass header.from=a.test",
    b"relay.test;dmarc=pass",
    b"relay.test 1; spf=fail smtp.mailfrom=a.test; dmarc=pass (p=REJECT sp=NONE dis=NONE) header.from=a.test",
    b"relay.test; DMARC = Pass",
    b"relay.test;\r\n\tspf=pass;\r\n\tdmarc=pass\r\n\theader.from=a.test",
    b"relay.test; dmarc\r\n = \r\n pass",
    b"relay.test; dmarc/1=pass",
    b'relay.test; (a (nested \\) ") comment) dmarc (one) = (two) pass (three) header.from=a.test',
    b'relay.test; dkim=fail reason="no; \\" key" header.d=a.test; dmarc=pass',
    b'relay.test; dkim=fail (he said ") header.d=a.test; dmarc=pass',
    b"mx.relay.test; dmarc=pass; dmarc=pass header.from=a.test",
)

FORGED = (
    b"",
    b"relay.test; none",
    b"dmarc=pass",  # where the authserv-id stands
    b"relay.test dmarc=pass",
    b"relay.test; dmarc=fail",
    b"relay.test; dmarc=fail; dmarc=pass",
    b"relay.test; dmarc=pass; dmarc=none",
    b"relay.test; dmarc=passthrough",
    b"relay.test; dmarc=pass-through",
    b"relay.test; dmarc=pass.through",
    b"relay.test; dmarc=pass_",
    b"relay.test; dmarc=pass=fail",
    b"relay.test; dmarc=bestguesspass",
    b"relay.test; dmarc=",
    b"relay.test; dmarc/2=pass",
    b"relay.test; xdmarc=pass",
    b"relay.test; x-dmarc=pass",
    b"relay.test; dmarc.x=pass",
    b"relay.test; spf=pass dmarc=pass",
    b"relay.test; spf=pass smtp.mailfrom=dmarc=pass",
    b"relay.test; spf=pass policy.dmarc=pass",
    b"relay.test; (dmarc=pass)",
    b"relay.test; spf=fail (x; dmarc=pass)",
    b"relay.test; spf=fail (a (b) ; dmarc=pass)",
    b"relay.test; spf=fail (((((((((((((; dmarc=pass)))))))))))))",
    b"relay.test; spf=fail (a \\) ; dmarc=pass ; x (b)",
    b"relay.test; spf=fail (a \\( ); dmarc=fail (; dmarc=pass)",
    b'relay.test; dkim=fail reason="; dmarc=pass ;"',
    b'relay.test; dkim=fail reason="\\"; dmarc=pass ;"',
    b'relay.test; dkim=fail reason="\\\\" header.d="; dmarc=pass"',
    b'relay.test; spf=fail (a") ; dkim=fail reason=") ; dmarc=pass ; x (" (")',
    b'relay.test; dmarc=pa"x"ss',
    b"relay.test; dmarc=pa(x)ss",
    b'relay.test; dmarc="pass"',
    b'relay.test; dmarc=pass"',  # what does not end might go on anywhere
    b"relay.test; spf=fail (; dmarc=pass",
    b"relay.test; dmarc=pass; spf=fail (open",
    b'relay.test; dmarc=pass; dkim=fail reason="open',
    b"relay.test; spf=fail ); dmarc=pass",
    b'relay.test; spf=fail \\"; dmarc=pass ;\\"',
    b"relay.test; spf=fail \\; dmarc=pass",
    b"relay.test; dmarc=pass \\",
    b"relay.test; spf=fail (x\r\n\t; dmarc=pass\r\n\t)",
)


def vouches(field: bytes) -> bool:
    return vouched_by(replace(GOOD, authentication_results=field), TRUSTED) == SEALER


@pytest.mark.parametrize("field", GENUINE)
def test_the_word_of_a_sealer(field: bytes) -> None:
    assert vouches(field)


@pytest.mark.parametrize("field", FORGED)
def test_what_is_not_the_word_of_a_sealer(field: bytes) -> None:
    assert not vouches(field)


def test_nobody_vouches_without_a_chain() -> None:
    assert vouched_by(None, TRUSTED) == ""


@pytest.mark.parametrize(
    "arc",
    [
        replace(GOOD, status=ArcStatus.FAIL),
        replace(GOOD, status=ArcStatus.NONE),
        replace(GOOD, sealer="stranger.test"),
        replace(GOOD, sealer="mail." + SEALER),
        replace(GOOD, sealer=""),
        replace(GOOD, from_signed=False),
    ],
)
def test_who_is_not_believed(arc: ArcResult) -> None:
    assert vouched_by(GOOD, TRUSTED) == SEALER
    assert vouched_by(arc, TRUSTED) == ""


def test_the_newest_sealer_alone_counts() -> None:
    older = replace(GOOD, sealer="stranger.test", sealers=((2, "stranger.test"), (1, SEALER)))
    assert vouched_by(older, TRUSTED) == ""


def test_nobody_is_trusted_unasked() -> None:
    assert vouched_by(GOOD, frozenset()) == ""


async def test_a_real_chain() -> None:
    passed = "i=1; relay.test; spf=pass smtp.mailfrom=a.test; dmarc=pass header.from=a.test"
    assert vouched_by(await result(seal(results=passed)), TRUSTED) == SEALER
    assert vouched_by(await result(seal(results=passed, signature={"h": "to:subject"})), TRUSTED) == ""
    assert vouched_by(await result(seal(results=passed), {}), TRUSTED) == ""
    assert vouched_by(await result(chain(1)), TRUSTED) == ""
    later = "i=2; relay.test; dmarc=fail header.from=a.test"
    assert vouched_by(await result(seal(seal(results=passed), results=later)), TRUSTED) == ""


def escaped(text: str, specials: str) -> str:
    return "".join("\\" + character if character in specials else character for character in text)


@given(st.lists(st.tuples(st.booleans(), st.text('ab\\"(); =dmrcps\r\n\t', max_size=30)), max_size=6))
def test_texts_of_strangers_never_count(texts: list[tuple[bool, str]]) -> None:
    """A sealer that writes comments and quoted strings as RFC 5322 wants cannot be made to say what it did not say."""
    words = [f'reason="{escaped(text, chr(92) + chr(34))}"' if quoted else f"({escaped(text, '()' + chr(92))})"
             for quoted, text in texts]  # fmt: skip
    for genuine, word in ((False, "fail"), (True, "pass")):
        field = f"relay.test; spf=fail {' '.join(words)} smtp.mailfrom=a.test; dmarc={word} header.from=a.test"
        assert vouches(field.encode()) is genuine


@given(st.binary(max_size=200))
def test_any_octets_are_answered(field: bytes) -> None:
    vouches(field)
    assert not vouches(b"relay.test; spf=fail (" + field)


def test_long_fields_take_linear_time() -> None:
    for field in (b"(" * 1_000_000, b'"' * 1_000_001, b"\\" * 1_000_000, b"dmarc= " * 200_000, b"()" * 500_000):
        assert not vouches(b"relay.test; " + field)
