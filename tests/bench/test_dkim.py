"""What DKIM costs, beside dkimpy in the same run. Run with `-m bench -s`; only ratios are asserted, never seconds.

Times are of the processor, medians. Row numbers are those of the acceptance table.
"""

import base64
import gc
import hashlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import dkim
import pytest

from forwarder.auth.dkim.canonical import BodyKey, header_relaxed
from forwarder.auth.dkim.keys import Refusal, published
from forwarder.auth.dkim.verify import DkimResult, DkimStatus, verify
from forwarder.auth.incoming import Incoming
from forwarder.model.headers import MAX_FIELDS
from tests.auth.dkim.signer import NAME, NOW, rsa_key, sign
from tests.auth.dkim.test_keys import bare, modulus, record
from tests.fakes import FakeResolver

pytestmark = pytest.mark.bench

PIECE = 1 << 16
LINE = b"The quick brown fox jumps over the lazy dog, and then it does it again, <b>twice</b>.\r\n"
BODIES = {
    "text": LINE * 290_000,
    "base64": base64.encodebytes(bytes(range(256)) * 72_000).replace(b"\n", b"\r\n"),
    "spaces": b" " * 25_000_000,
    "two spaces": b"a  b\t\r\n" * 3_500_000,
    "empty lines": b"\r\n" * 12_500_000,
}
HEADER = b"".join(b"X-Field-%d: some value of %d\r\n" % (n, n) for n in range(15))
AUTHOR = b"From: Alice <alice@sender.test>\r\nTo: bob@b.test\r\nSubject: ten kilobytes\r\n"
RESOLVER = FakeResolver({(NAME, "TXT"): [rsa_key().record]})


def cpu(work: Callable[[], object], times: int = 5) -> float:
    """The median of several runs, in seconds of processor time."""
    runs = []
    for _ in range(times):
        gc.collect()
        before = time.process_time()
        work()
        runs.append(time.process_time() - before)
    return statistics.median(runs)


def verified(message: bytes) -> tuple[DkimResult, ...]:
    received = Incoming()
    for start in range(0, len(message), PIECE):
        received.feed(message[start : start + PIECE])
    received.finish()
    running = verify(RESOLVER, received, NOW)
    try:
        running.send(None)
    except StopIteration as done:
        found: tuple[DkimResult, ...] = done.value
        return found
    raise AssertionError("the fake resolver waited")


@pytest.mark.parametrize("name", BODIES)
def test_25_megabytes(name: str) -> None:
    pieces = [BODIES[name][start : start + PIECE] for start in range(0, len(BODIES[name]), PIECE)]
    head = HEADER + AUTHOR + b"\r\n"
    head = sign(head)[: -len(head)] + head

    def ours() -> None:
        received = Incoming()
        received.feed(head)
        for piece in pieces:
            received.feed(piece)
        received.finish()
        assert received.body_digest(BodyKey(relaxed=True)) is not None

    def plain() -> None:
        sha256 = hashlib.sha256()
        for piece in pieces:
            sha256.update(piece)

    mine, bound = cpu(ours), cpu(plain)
    print(
        f"\n{name}, {len(BODIES[name]) / 1e6:.0f} MB, relaxed: {mine * 1e3:.0f} ms; sha256 alone {bound * 1e3:.0f} ms"
    )
    assert mine < 40 * bound


def test_ten_kilobytes() -> None:
    message = sign(HEADER + AUTHOR + b"\r\n" + LINE * 110)
    text = rsa_key().record.encode()
    assert verified(message)[0].status is DkimStatus.PASS
    assert dkim.verify(message, dnsfunc=lambda name, timeout=5: text)
    ours = cpu(lambda: [verified(message) for _ in range(200)]) / 200
    theirs = cpu(lambda: [dkim.verify(message, dnsfunc=lambda name, timeout=5: text) for _ in range(50)]) / 50
    print(f"\n10 kB, one RSA-2048 signature, warm key: {ours * 1e6:.0f} µs; dkimpy {theirs * 1e6:.0f} µs")
    assert ours < theirs


def many_signatures(count: int) -> bytes:
    one = sign(AUTHOR + b"\r\nbody\r\n")
    return one[: one.index(b"From:")] * count + one[one.index(b"From:") :]


def test_129_signatures_of_the_author() -> None:  # row 44
    for count in (1, 10, 129, 1000):
        message = many_signatures(count)
        print(f"\n{count} signatures: {cpu(partial(verified, message)) * 1e3:.2f} ms", end="")
        assert len(verified(message)) <= 10


def read_next(texts: Iterator[bytes]) -> None:
    assert isinstance(published(next(texts)), Refusal)


def test_large_keys() -> None:  # row 45
    for bits, exponent in ((512, 65537), (16384, 65537), (4096, 2**4000 + 1), (2048, 2**2000 + 1)):
        octets = bare(modulus(bits), exponent)
        fresh = iter(record(octets).replace(b";", b"; n=%d;" % n, 1) for n in range(1, 100))
        seconds = cpu(partial(read_next, fresh))
        print(f"\n{bits} bits, exponent of {exponent.bit_length()}: {seconds * 1e3:.3f} ms", end="")


def test_white_space_in_a_header() -> None:
    fields = [b"Subject: a" + b" \t" * count + b"b\r\n" for count in (30_000, 300_000, 3_000_000)]
    times = [cpu(partial(header_relaxed, field)) for field in fields]
    print("\n60 kB, 600 kB, 6 MB of white space in a header: " + ", ".join(f"{each * 1e3:.2f} ms" for each in times))
    assert times[2] < 40 * times[1]
    message = sign(HEADER + AUTHOR.replace(b"ten", b"a" + b" \t" * 30_000) + b"\r\nbody\r\n")
    print(f"in a signed message: {cpu(lambda: verified(message)) * 1e3:.2f} ms")


def test_many_headers() -> None:  # row 50
    message = sign(b"X: y\r\n" * (MAX_FIELDS - 10) + AUTHOR + b"\r\nbody\r\n", h=":".join(["from"] + ["x"] * 999))
    assert verified(message)[0].status is DkimStatus.PASS
    more = b"X: y\r\n" * 100_000 + message
    assert verified(more)[0].status is DkimStatus.PERMERROR
    times = [cpu(partial(verified, octets)) * 1e3 for octets in (message, more)]
    print(f"\n{MAX_FIELDS:,} fields, h= of 1,000: {times[0]:.1f} ms; 100,000 fields, given up: {times[1]:.1f} ms")


def test_many_lengths_cost_one_pass() -> None:
    body = BODIES["text"][: 1 << 22]

    def hashed(lengths: int) -> float:
        header = b"".join(sign(b"\r\n", l=str(n))[:-2] for n in range(lengths))
        return cpu(lambda: verified(header + b"\r\n" + body))

    one, ten = hashed(1), hashed(10)
    print(f"\n4 MB with one l=: {one * 1e3:.0f} ms, with ten: {ten * 1e3:.0f} ms")
    assert ten < 3 * one
