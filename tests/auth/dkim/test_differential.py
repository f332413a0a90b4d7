"""dkimpy as an oracle: it signs, somebody changes the message, and both must come to the same answer.

Where the two differ, ours follows the RFC; `test_known_differences` names each difference and its section. What is
generated leaves them out: no CR or LF alone and no form feeds (dkimpy repairs or strips them before it hashes), no
white space before a colon (dkimpy raises), no second From (dkimpy adds one to h=, RFC 6376 5.4.2 does not).
"""

import dkim
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from forwarder.auth.dkim.verify import DkimResult, DkimStatus, verify
from tests.auth.dkim.signer import NAME, NOW, ed25519_key, incoming, result, rsa_key, sign
from tests.corpus import signed
from tests.fakes import FakeResolver

KEY = signed.make_key()
CLEAN = {
    (canonical, length): signed.sign(KEY, canonical, length=length)
    for canonical in signed.CANONICAL
    for length in (False, True)
}
PIECES = [
    b"",
    b" ",
    b"\t",
    b"  ",
    b"\r\n",
    b"\r\n ",
    b"\r\n\r\n",
    b"a",
    b"A",
    b";",
    b"=",
    b".",
    b"\xe9",
    b"X-New: a\r\n",
]


def ours(message: bytes) -> DkimResult:
    """Verify without a loop: the fake resolver never waits. The time is that of dkimpy, which looks at the clock."""
    received = incoming(message)
    signature = received.signatures[0].signature if received.signatures else None
    now = getattr(signature, "signed_at", None) or NOW
    running = verify(FakeResolver({(KEY.name, "TXT"): [KEY.record]}), received, now)
    try:
        running.send(None)
    except StopIteration as done:
        found: tuple[DkimResult, ...] = done.value
        return found[0] if found else DkimResult(DkimStatus.NONE, reason="no signature")
    raise AssertionError("the fake resolver waited")


def theirs(message: bytes) -> bool:
    try:
        return signed.verifies(KEY, message)
    except (dkim.DKIMException, IndexError, ValueError):  # how dkimpy refuses malformed input
        return False


def understood_alike(message: bytes) -> bool:
    """Whether what is generated is free of the differences that are named above."""
    header = message.partition(b"\r\n\r\n")[0]
    lines = header.split(b"\r\n")
    names = [line.partition(b":")[0].lower() for line in lines if line[:1] not in (b" ", b"\t")]
    return (
        all(name and name == name.strip() for name in names)
        and all(b":" in line for line in lines if line[:1] not in (b" ", b"\t"))
        and lines[0][:1] not in (b" ", b"\t")
        and names.count(b"from") == 1
        and message.endswith(b"\r\n")
    )


edits = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from(PIECES)),
    min_size=0,
    max_size=3,
)


def edited(message: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, piece in changes:
        at = place % (len(message) + 1)
        before, after = message[:at], message[at + length :]
        while before.endswith(b"\r") or after.startswith(b"\n"):  # never tear a CRLF
            before, after = (before[:-1], after) if before.endswith(b"\r") else (before, after[1:])
        message = before + piece + after
    return message


@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.sampled_from(sorted(CLEAN)), edits)
@example(("relaxed/relaxed", False), [])
@example(("simple/simple", True), [(10_000, 0, b".\r\n")])
def test_the_same_answer_as_dkimpy(how: tuple[str, bool], changes: list[tuple[int, int, bytes]]) -> None:
    message = edited(CLEAN[how], changes)
    if (
        b"\n" in message.replace(b"\r\n", b"")
        or b"\r" in message.replace(b"\r\n", b"")
        or not understood_alike(message)
    ):
        return
    found = ours(message)
    assert (found.status is DkimStatus.PASS) == theirs(message), found


@pytest.mark.parametrize("how", sorted(CLEAN))
def test_what_dkimpy_signs_verifies(how: tuple[str, bool]) -> None:
    assert ours(CLEAN[how]).status is DkimStatus.PASS
    assert theirs(CLEAN[how])
    longer = CLEAN[how] + b"more\r\n"
    found = ours(longer)
    assert (found.status is DkimStatus.PASS) == theirs(longer) == how[1]
    assert found.body_extended is how[1]  # dkimpy does not say


PUBLIC = rsa_key().public
FAIL, PASS, PERMERROR = DkimStatus.FAIL, DkimStatus.PASS, DkimStatus.PERMERROR


@pytest.mark.parametrize(
    ("message", "record", "dkimpy", "status"),
    [
        pytest.param(sign(i="a@x.sender.test"), f"t=s; p={PUBLIC}", True, PERMERROR, id="key t=s: RFC 6376 3.6.1"),
        pytest.param(sign(), f"h=sha1; p={PUBLIC}", True, PERMERROR, id="key h=: RFC 6376 3.6.1"),
        pytest.param(sign(), f"s=other; p={PUBLIC}", None, PERMERROR, id="key s= of something else: dkimpy raises"),
        pytest.param(sign(), f"s=email:tlsrpt; p={PUBLIC}", None, PASS, id="key s= is a list: RFC 6376 3.6.1"),
        pytest.param(sign(), f"p={PUBLIC}; v=DKIM1", True, PERMERROR, id="key v= must come first: RFC 6376 3.6.1"),
        pytest.param(sign(h="to:subject"), f"p={PUBLIC}", True, PERMERROR, id="h= without From: RFC 6376 6.1.1"),
        pytest.param(sign(l="999"), f"p={PUBLIC}", True, FAIL, id="l= beyond the body: RFC 6376 3.5"),
        pytest.param(
            b"From: eve@evil.test\r\n" + sign(), f"p={PUBLIC}", False, PASS, id="second From not in h=: RFC 6376 5.4.2"
        ),
        pytest.param(
            sign().replace(b"\r\nTo:", b"\r\nTo :"),
            f"p={PUBLIC}",
            None,
            PASS,
            id="space before the colon: RFC 6376 3.4.2",
        ),
        pytest.param(
            sign(c="simple/simple").replace(b"\r\nHello", b"\r\n\x0bHello"), f"p={PUBLIC}", False, FAIL, id="control"
        ),
        pytest.param(sign(), f"k=rsa; p={PUBLIC};;", None, PERMERROR, id="two semicolons: RFC 6376 3.2, alike"),
        pytest.param(sign(key=ed25519_key()), ed25519_key().record, None, PASS, id="Ed25519 without PyNaCl: RFC 8463"),
        pytest.param(sign(d="b.test", s="lab"), f"p={PUBLIC}", None, PERMERROR, id="no key: dkimpy raises or fails"),
    ],
)
async def test_known_differences(message: bytes, record: str, dkimpy: bool | None, status: DkimStatus) -> None:
    """`dkimpy` is what it says to the message; None where it raises or says no for a reason of its own."""
    assert (await result(message, record, now=NOW)).status is status
    if dkimpy is not None:
        name = f"{NAME}."
        try:
            answer = dkim.verify(
                message, dnsfunc=lambda asked, timeout=5: record.encode() if asked.decode() == name else b""
            )
        except dkim.DKIMException:
            answer = False
        assert answer is dkimpy
