"""What signing and sealing cost beside bare RSA in the same run. Run with `-m bench -s`; only ratios are asserted.

Times are of the processor, medians of rounds in which both are measured in turn. The goal: a DKIM-Signature, an
ARC-Message-Signature and an ARC-Seal for at most 1.3 times three RSA-2048 signatures, however long the body is.
"""

import gc
import statistics
import time
from collections.abc import Callable
from hashlib import sha256

import pytest

from forwarder.auth.arc.verify import ArcResult, ArcStatus
from forwarder.auth.incoming import Incoming
from forwarder.model.headers import Header
from forwarder.rewrite.seal import seal
from forwarder.rewrite.sign import BODY, sign, signable
from forwarder.rewrite.signing_key import load_key
from forwarder.rewrite.survival import Change
from tests.auth.dkim.signer import NOW, rsa_key
from tests.auth.dkim.signer import sign as sign_before
from tests.rewrite.judges import HEAD, RESULTS, arc, pem, received, rsa, stamped

pytestmark = pytest.mark.bench

LINE = b"The quick brown fox jumps over the lazy dog, and then it does it again, <b>twice</b>.\r\n"
FIELDS = b"".join(b"X-Field-%d: some value of %d\r\n" % (n, n) for n in range(15))
AUTHOR = (
    b"From: Alice <alice@sender.test>\r\nTo: bob@b.test\r\nSubject: a message\r\n"
    b"Date: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@sender.test>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    b"List-Unsubscribe: <https://sender.test/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)
KEY = rsa()
NO_CHAIN = ArcResult(ArcStatus.NONE)
DIGEST = sha256(b"octets").digest()


def ratio(work: Callable[[], object], base: Callable[[], object], times: int = 100) -> tuple[float, float, float]:
    """Give the median ratio of the two over rounds, and the medians in seconds."""
    rounds = []
    for _ in range(15):
        gc.collect()
        spent = []
        for each in (work, base):
            before = time.process_time()
            for _ in range(times):
                each()
            spent.append((time.process_time() - before) / times)
        rounds.append(spent)
    return (
        statistics.median(ours / bare for ours, bare in rounds),
        statistics.median(ours for ours, _ in rounds),
        statistics.median(bare for _, bare in rounds),
    )


def bare() -> None:
    for _ in range(3):
        KEY.sign(DIGEST)


def arrived(message: bytes) -> tuple[Header, bytes]:
    made = received(message)
    body = made.body_digest(BODY)
    assert made.header is not None
    assert body is not None
    return made.header, body.digest


def stamp(header: Header, digest: bytes, chain: ArcResult = NO_CHAIN) -> bytes:
    """All that a message costs, from the arrived header to the lines on top."""
    what = signable(header, digest, NOW)
    top = sign((KEY,), what)
    return top + seal(KEY, chain, what, RESULTS, top)


def test_ten_kilobytes() -> None:
    message = sign_before(FIELDS + AUTHOR + b"\r\n" + LINE * 110)
    header, digest = arrived(message)
    stamped_message = stamp(header, digest) + HEAD + message
    assert arc(stamped_message).status is ArcStatus.PASS
    found, ours, base = ratio(lambda: stamp(header, digest), bare)
    print(
        f"\n10 kB signed and sealed: {ours * 1e6:.0f} µs; three bare signatures {base * 1e6:.0f} µs; {found:.3f} times"
    )
    assert found < 1.3


def test_on_top_of_a_chain() -> None:
    for sets in (1, 3):
        message = AUTHOR + b"\r\n" + LINE * 110
        for _ in range(sets):
            message = stamped(message)
        chain = arc(message)
        header, digest = arrived(message)
        found, ours, _ = ratio(lambda: stamp(header, digest, chain), bare)  # noqa: B023 - called in this round
        print(f"\non top of {sets} sets: {ours * 1e6:.0f} µs; {found:.3f} times three bare signatures", end="")
        assert found < 1.6


def test_25_megabytes_cost_no_further_pass() -> None:
    head = AUTHOR + b"\r\n"
    small, large = arrived(head + LINE), arrived(head + LINE * 290_000)
    found, ours, base = ratio(lambda: stamp(*large), lambda: stamp(*small), 30)
    print(f"\n25 MB: {ours * 1e6:.0f} µs; 86 octets: {base * 1e6:.0f} µs; {found:.3f} times")
    assert found < 1.3


def test_the_hash_for_signing_beside_the_senders() -> None:
    """Where the sender signed relaxed too, the hash for signing is at hand."""
    message = sign_before(AUTHOR + b"\r\n" + LINE * 30_000)

    def take(made: Incoming) -> None:
        for start in range(0, len(message), 1 << 16):
            made.feed(message[start : start + (1 << 16)])
        made.finish()

    found, ours, _ = ratio(lambda: take(Incoming(also=(BODY,))), lambda: take(Incoming()), 3)
    print(f"\n2.6 MB with a hash for signing: {ours * 1e3:.1f} ms, {found:.3f} times as long as without")
    assert found < 1.3


def test_loading_a_key() -> None:
    text = pem(rsa_key().private)
    found, ours, _ = ratio(lambda: load_key(text, "ours.test", "s1"), lambda: KEY.sign(DIGEST), 10)
    print(f"\nloading an RSA key: {ours * 1e6:.0f} µs, {found:.1f} signatures")
    assert found < 10


def test_large_headers() -> None:
    for name, header in (
        ("10,000 fields", b"X: y\r\n" * 9_900 + AUTHOR),
        ("500 kB of Cc", AUTHOR + b"Cc: " + b"user@elsewhere.test,\r\n " * 23_000 + b"x@y.test\r\n"),
        ("9,000 From", b"From: a@b.test\r\n" * 9_000 + AUTHOR),
    ):
        given = arrived(header + b"\r\n" + LINE)
        found, ours, _ = ratio(lambda: stamp(*given), bare, 5)  # noqa: B023 - called in this round
        print(f"\n{name}: {ours * 1e3:.2f} ms, {found:.1f} times three bare signatures", end="")
        assert found < 30


def test_foretelling_what_survives() -> None:
    message = FIELDS + AUTHOR + b"\r\n" + LINE
    for _ in range(3):
        message = sign_before(message)
    made = received(message)
    assert made.header is not None
    known = [(each.field.raw, each.signature) for each in made.signatures]

    def foretell() -> None:
        assert made.header is not None
        change = Change(made.header, HEAD)
        assert all(change.keeps(raw, signature) for raw, signature in known)  # type: ignore[arg-type]

    found, ours, _ = ratio(foretell, bare)
    print(f"\nthree signatures: {ours * 1e6:.0f} µs, {found:.3f} times three bare signatures")
    assert found < 0.3
