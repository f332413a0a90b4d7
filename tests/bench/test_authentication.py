"""What all checks of a message cost, beside dkimpy in the same run. Run with `-m bench -s`; only ratios are asserted.

Times are of the processor, medians, with DNS at hand (the cache is warm). The goals stand beside the numbers; row
numbers are those of the acceptance table.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial

import dkim
import pytest

from forwarder.auth.results import Authentication, authentication_results
from forwarder.model.address import parse_mailbox
from forwarder.model.headers import split_header
from forwarder.policy.content import ContentLimits, objection
from forwarder.session.examination import Checks, Examination, Question
from forwarder.session.verdict import judge, told
from tests.auth.arc.sealer import NAME as RELAY_KEY
from tests.auth.arc.sealer import chain, seal
from tests.auth.dkim.signer import NAME, NOW, rsa_key, sign
from tests.auth.dkim.test_keys import bare, modulus
from tests.auth.dkim.test_keys import record as key_record
from tests.fakes import FakeClock, FakeResolver

pytestmark = pytest.mark.bench

PIECE = 1 << 16
LINE = b"The quick brown fox jumps over the lazy dog, and then it does it again, <b>twice</b>.\r\n"
FIELDS = b"".join(b"X-Field-%d: some value of %d\r\n" % (n, n) for n in range(15))
AUTHOR = b"From: Alice <alice@sender.test>\r\nTo: bob@b.test\r\nSubject: a message\r\n"
SMALL = AUTHOR + b"\r\nbody\r\n"
ZONE = {
    ("sender.test", "TXT"): ["v=spf1 include:_spf.sender.test ip4:192.0.2.0/24 -all"],
    ("_spf.sender.test", "TXT"): ["v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 ip6:2001:db8::/32 ?all"],
    ("mail.sender.test", "TXT"): ["v=spf1 a -all"],
    ("_dmarc.sender.test", "TXT"): ["v=DMARC1; p=reject; rua=mailto:dmarc@sender.test"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mail.sender.test"],
    ("mail.sender.test", "A"): ["192.0.2.1"],
    (NAME, "TXT"): [rsa_key().record],
    (RELAY_KEY, "TXT"): [rsa_key().record],
}
QUESTION = Question("192.0.2.1", "mail.sender.test", parse_mailbox("alice@sender.test"), "mx.ours.test")
CLOCK = FakeClock(datetime.fromtimestamp(NOW, UTC))
LIMITS = ContentLimits()


def cpu(work: Callable[[], object], times: int = 5) -> float:
    """The median of several runs, in seconds of processor time."""
    runs = []
    for _ in range(times):
        gc.collect()
        before = time.process_time()
        work()
        runs.append(time.process_time() - before)
    return statistics.median(runs)


async def examine(message: bytes, zone: dict[tuple[str, str], list[str]] | None = None) -> Authentication | None:
    """Do all that a session does with a message from DATA on to the field that it writes; None if it is refused."""
    examination = Examination(Checks(), QUESTION, FakeResolver(zone or ZONE), CLOCK, LIMITS.header_size)
    for start in range(0, len(message), PIECE):
        examination.feed(message[start : start + PIECE])
    head = message[: LIMITS.header_size + 1]
    if objection(head, examination.header or split_header(head), LIMITS):
        examination.cancel()
        return None
    found = await examination.finish()
    verdict = judge(Checks(), found)
    told(found, verdict)
    authentication_results("mx.ours.test", found, verdict.disposition.value)
    return found


def each(work: Callable[[], Awaitable[object]], count: int, times: int = 5) -> float:
    """The median processor time of one piece of work, of `count` in a row in one event loop."""

    async def repeated() -> None:
        for _ in range(count):
            await work()

    asyncio.run(repeated())
    return cpu(lambda: asyncio.run(repeated()), times) / count


def found_by_dkimpy(message: bytes) -> bool:
    text = rsa_key().record.encode()
    return bool(dkim.verify(message, dnsfunc=lambda name, timeout=5: text))


def test_ten_kilobytes() -> None:
    message = sign(FIELDS + AUTHOR + b"\r\n" + LINE * 110)
    found = asyncio.run(examine(message))
    assert found is not None
    assert found.dmarc is not None
    assert found.dmarc.aligned_both
    assert found_by_dkimpy(message)
    ours = each(partial(examine, message), 200)
    theirs = cpu(lambda: [found_by_dkimpy(message) for _ in range(50)]) / 50
    verdict = judge(Checks(), found)
    written = cpu(lambda: [authentication_results("mx.ours.test", found, "pass") for _ in range(500)]) / 500
    judged = cpu(lambda: [(judge(Checks(), found), told(found, verdict)) for _ in range(500)]) / 500
    print(f"\n10 kB, one RSA-2048 signature, all checks: {ours * 1e6:.0f} µs (goal 600); dkimpy {theirs * 1e6:.0f} µs")
    print(f"of that the field {written * 1e6:.0f} µs, the verdict {judged * 1e6:.0f} µs")
    assert ours < 2 * theirs


def test_25_megabytes() -> None:
    message = sign(FIELDS + AUTHOR + b"\r\n" + LINE * 290_000)
    ours = each(partial(examine, message), 1)
    theirs = cpu(lambda: found_by_dkimpy(message), 3)
    print(f"\n25 MB, all checks: {ours * 1e3:.0f} ms (goal 200); dkimpy {theirs * 1e3:.0f} ms")
    assert ours < theirs


def many_signatures(count: int) -> bytes:
    one = sign(SMALL)
    end = one.index(b"From:")
    return one[:end] * count + one[end:]


def sets_by_hand(count: int) -> bytes:
    """Give a message with that many sets, all but the newest as numbers alone: refused, as 50 is the limit."""
    fields = b"".join(
        b"ARC-Seal: i=%d; cv=pass\r\nARC-Message-Signature: i=%d\r\nARC-Authentication-Results: i=%d; x\r\n" % (n, n, n)
        for n in range(count, 0, -1)
    )
    return fields + SMALL


def large_key(bits: int) -> dict[tuple[str, str], list[str]]:
    return {**ZONE, (NAME, "TXT"): [key_record(bare(modulus(bits), 65537)).decode()]}


HOSTILE = {  # rows 44, 45, 46, 50
    "129 signatures": partial(examine, many_signatures(129)),
    "1,000 signatures": partial(examine, many_signatures(1000)),
    "50 ARC sets": partial(examine, chain(50, sign(SMALL))),
    "51 ARC sets": partial(examine, sets_by_hand(51)),
    "3,000 ARC sets": partial(examine, sets_by_hand(3000)),
    "a key of 16,384 bits": partial(examine, sign(SMALL), large_key(16_384)),
    "100,000 headers": partial(examine, b"X: y\r\n" * 100_000 + sign(SMALL)),
    "9,000 headers, signed": partial(examine, sign(b"X: y\r\n" * 9_000 + SMALL, h=":".join(["from"] + ["x"] * 999))),
    "60 kB of white space in a header": partial(
        examine, sign(SMALL.replace(b"Subject: a", b"Subject: a" + b" \t" * 30_000))
    ),
    "60 kB of white space, sealed": partial(
        examine, seal(sign(SMALL.replace(b"Subject: a", b"Subject: a" + b" \t" * 30_000)))
    ),
    "900 kB of From": partial(examine, b"From: " + b"(" * 900_000 + b"\r\n\r\n"),
    "900 kB of a From of addresses": partial(examine, b"From: " + b"a@b.test, " * 90_000 + b"\r\n\r\n"),
    "forged results, 5,000 of them": partial(examine, b"Authentication-Results: mx.ours.test; x\r\n" * 5_000 + SMALL),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str) -> None:
    seconds = each(HOSTILE[name], 1)
    print(f"\n{name}: {seconds * 1e3:.1f} ms (goal 100)")
