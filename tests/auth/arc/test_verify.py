from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.arc.record import MAX_SETS
from forwarder.auth.arc.verify import OLDER_CHECKED, ArcResult, ArcStatus, verify
from forwarder.auth.dkim.keys import PublicKey
from forwarder.auth.dkim.verify import CLOCK_SKEW
from forwarder.auth.incoming import Incoming
from forwarder.model.headers import split_header
from tests.auth.arc.sealer import DOMAIN, NAME, chain, resolver, result, seal
from tests.auth.dkim.signer import MESSAGE, NOW, Key, ed25519_key, incoming, rsa_key

OTHER = {"d": "other.test", "s": "two"}
OTHER_NAME = "two._domainkey.other.test"


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signatures that keys were asked about."""
    asked: list[bytes] = []
    made = PublicKey.made_digest

    def counting(key: PublicKey, signature: bytes, digest: bytes) -> bool:
        asked.append(signature)
        return made(key, signature, digest)

    monkeypatch.setattr(PublicKey, "made_digest", counting)
    return asked


async def test_none() -> None:
    expected = ArcResult(ArcStatus.NONE, reason="the message has no ARC sets")
    assert await result(MESSAGE) == expected
    assert await result(b"\r\n") == expected


async def test_pass() -> None:
    message = seal(seal(), results="i=2; relay.test;\r\n spf=fail;\r\n\tarc=pass", signature=OTHER, cover=OTHER)
    records = {NAME: rsa_key().record, OTHER_NAME: rsa_key().record}
    assert await result(message, records) == ArcResult(
        ArcStatus.PASS,
        instances=2,
        sealer="other.test",
        authentication_results=b"relay.test;\r\n spf=fail;\r\n\tarc=pass",
        sealers=((2, "other.test"), (1, DOMAIN)),
        from_signed=True,
    )


@pytest.mark.parametrize("keys", [(rsa_key(1024),), (ed25519_key(),), (rsa_key(), ed25519_key(), rsa_key(4096))])
async def test_kinds_of_keys(keys: tuple[Key, ...]) -> None:
    message, records = MESSAGE, {}
    for n, key in enumerate(keys):
        message = seal(message, key, signature={"s": f"k{n}"}, cover={"s": f"k{n}"})
        records[f"k{n}._domainkey.{DOMAIN}"] = key.record
    assert (await result(message, records)).status is ArcStatus.PASS


async def test_the_sealer_is_who_sealed_not_who_signed() -> None:
    records = {NAME: rsa_key().record, OTHER_NAME: rsa_key().record}
    assert (await result(seal(cover=OTHER), records)).sealer == "other.test"
    assert (await result(seal(signature=OTHER), records)).sealer == DOMAIN


async def test_a_header_that_is_too_long() -> None:
    message = Incoming(header_limit=100)
    message.feed(chain(1))
    message.finish()
    failed = await verify(resolver(), message, NOW)
    assert failed == ArcResult(ArcStatus.FAIL, reason="the header section is too long to be checked")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"good bye", b"good-bye", "the ARC-Message-Signature with i=2 is not good: the body was changed"),
        (b"Subject: one", b"Subject: two", "the ARC-Message-Signature with i=2 is not good: the header was changed"),
        (b"Results: i=2; relay", b"Results: i=2; delay", "the ARC-Seal with i=2 is not good"),
        (b"Results: i=1; relay", b"Results: i=1; delay", "the ARC-Seal with i=2 is not good"),
        (b"ARC-Seal: i=2", b"ARC-Seal: y=0; i=2", "the ARC-Seal with i=2 is not good"),
        (b"ARC-Seal: i=1", b"ARC-Seal: y=0; i=1", "the ARC-Seal with i=2 is not good"),
        (b"Signature: i=1", b"Signature: y=0; i=1", "the ARC-Seal with i=2 is not good"),
        (b"Signature: i=2", b"Signature: y=0; i=2", "the ARC-Message-Signature with i=2 is not good: the header"),
        (b"ARC-Seal: i=2", b"ARC-Seal: i=3", "there is no ARC-Seal with i=2"),
        (b"ARC-Seal: i=2", b"ARC-Seal: h=; i=2", "an ARC-Seal cannot be read: it has a tag h="),
        (b"Signature: i=2", b"Signature: i=2; i=2", "an ARC-Message-Signature cannot be read: the tag i= is there"),
        (b"Signature: i=2;\r\n a=rsa-sha256", b"Signature: i=2", "the ARC-Message-Signature with i=2 cannot be read"),
    ],
)
async def test_changes(old: bytes, new: bytes, reason: str) -> None:
    message = chain(2)
    assert message.count(old) == 1
    failed = await result(message.replace(old, new))
    assert failed.status is ArcStatus.FAIL
    assert failed.reason.startswith(reason)
    assert failed == ArcResult(ArcStatus.FAIL, failed.instances, failed.reason)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ARC-Seal: i=2", b"arc-sEAL :\r\n  i=2"),
        (b"Results: i=1; relay", b"Results:\ti=1; \t relay"),
        (b"Received: by", b"X-More: new\r\nReceived: by"),
        (b"b.test \t\r\n", b" b.test\r\n"),
        (b"Hello,  \t Bob \r\n", b"Hello, Bob\r\n"),
    ],
)
async def test_changes_that_relaxed_forgives(old: bytes, new: bytes) -> None:
    message = chain(2)
    assert message.count(old) == 1
    if old.startswith(b"b.test"):
        new = b"b.test\r\n"
    assert (await result(message.replace(old, new))).status is ArcStatus.PASS


async def test_a_seal_by_an_older_key_of_a_chain_is_checked() -> None:
    """Each seal is checked, not the newest alone: its sealer may not have looked at those below."""
    message = seal(seal(key=rsa_key(2048, 1)))
    failed = await result(message)
    assert failed.reason.startswith("the ARC-Seal with i=1 is not good")


@pytest.mark.parametrize("algorithm", ["rsa-sha1", "rsa-sha512", "", "RSA-SHA256"])
async def test_algorithms(algorithm: str) -> None:
    sealed, signed = await result(seal(cover={"a": algorithm})), await result(seal(signature={"a": algorithm}))
    assert sealed.reason == "the ARC-Seal with i=1 was made with an algorithm that is not believed or not known"
    assert signed.status is ArcStatus.FAIL
    assert signed.reason.startswith("the ARC-Message-Signature with i=1 ")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, f"there is no key at {OTHER_NAME}"),
        ("v=DKIM1; p=", "the key was revoked"),
        (ed25519_key().record, "the key is for another algorithm than the signature's"),
        ("v=DKIM1; omgwhatsgoingon", "the key record cannot be used: it has a part that is not name=value"),
    ],
    ids=["missing", "revoked", "another kind", "malformed"],
)
async def test_keys_that_are_no_good(record: str | None, reason: str) -> None:
    records = {NAME: rsa_key().record} | ({OTHER_NAME: record} if record is not None else {})
    sealed, signed = await result(seal(cover=OTHER), records), await result(seal(signature=OTHER), records)
    assert sealed == ArcResult(ArcStatus.FAIL, 1, f"the ARC-Seal with i=1 cannot be checked: {reason}")
    assert signed == ArcResult(ArcStatus.FAIL, 1, f"the ARC-Message-Signature with i=1 cannot be checked: {reason}")


@pytest.mark.parametrize("signed", [True, False])
async def test_dns_that_does_not_answer(signed: bool) -> None:
    """It fails the chain (RFC 8617 5.2.1), and the result says that it was DNS."""
    message = seal(signature=OTHER) if signed else seal(cover=OTHER)
    silent = replace(resolver(), failing=frozenset({OTHER_NAME}))
    failed = await verify(silent, incoming(message), NOW)
    assert (failed.status, failed.temporary) == (ArcStatus.FAIL, True)
    assert failed.reason.endswith("cannot be checked: its key could not be looked up: the name server did not answer")


async def test_each_key_is_asked_for_once() -> None:
    dns = resolver({NAME: rsa_key().record, OTHER_NAME: rsa_key().record})
    message = seal(seal(seal(seal(chain(1), cover=OTHER))), signature=OTHER)
    assert (await verify(dns, incoming(message), NOW)).status is ArcStatus.PASS
    assert dns.asked == [(OTHER_NAME, "TXT"), (NAME, "TXT")]


async def test_the_first_bad_seal_ends_it(operations: list[bytes]) -> None:
    message = seal(seal(seal(seal(), key=rsa_key(2048, 1), signature={"a": "x"}), cover=OTHER))
    dns = resolver({NAME: rsa_key().record, OTHER_NAME: rsa_key().record})
    failed = await verify(dns, incoming(message), NOW)
    assert failed.reason.startswith("the ARC-Seal with i=2 is not good")
    assert len(operations) == 1 + 3  # one message signature, three seals


@pytest.mark.parametrize(
    ("tags", "now", "status"),
    [
        ({"x": str(NOW)}, NOW + CLOCK_SKEW, ArcStatus.PASS),
        ({"x": str(NOW)}, NOW + CLOCK_SKEW + 1, ArcStatus.FAIL),
        ({"t": str(NOW + CLOCK_SKEW)}, NOW, ArcStatus.PASS),
        ({"t": str(NOW + CLOCK_SKEW + 1)}, NOW, ArcStatus.FAIL),
    ],
)
async def test_times(tags: dict[str, str], now: int, status: ArcStatus) -> None:
    assert (await result(seal(signature=tags), now=now)).status is status


async def test_a_body_that_was_extended() -> None:
    body = b"Hello, Bob\r\n\r\n good bye\r\n"
    message = seal(signature={"l": str(len(body))})
    assert (await result(message)).status is ArcStatus.PASS
    failed = await result(message + b"send money\r\n")
    assert failed.reason == "the ARC-Message-Signature with i=1 does not cover the end of the body"
    short = await result(seal(signature={"l": "5"}))
    assert short.status is ArcStatus.FAIL


@pytest.mark.parametrize("names", ["", "to:subject", "arc-authentication-results:to"])
async def test_a_signature_that_leaves_from_out(names: str) -> None:
    passed = await result(seal(signature={"h": names}))
    assert (passed.status, passed.from_signed) == (ArcStatus.PASS, False)


async def test_a_signature_may_cover_the_sets_below() -> None:
    names = "from:arc-message-signature:arc-authentication-results"
    assert (await result(seal(seal(), signature={"h": names}))).status is ArcStatus.PASS


def changed(message: bytes) -> bytes:
    return message.replace(b"Subject: ", b"Subject: [list] ")


@pytest.mark.parametrize(
    ("message", "oldest"),
    [
        (chain(1), 0),
        (chain(3), 0),
        (seal(changed(seal())), 2),
        (seal(changed(seal(seal()))), 3),
        (seal(seal(changed(seal()))), 2),
        (seal(changed(seal(changed(seal())))), 3),
        (seal(seal(signature={"a": None})), 2),
        (seal(seal(signature={"x": str(NOW - 1000), "t": str(NOW - 2000)})), 2),
        (seal(seal(signature={"h": "from:arc-seal"})), 2),
        (seal(seal(seal(), signature={"a": None})), 3),
        (seal(seal(signature={"c": "relaxed/simple"})), 2),  # its body hash would take another pass
        (seal(seal(seal(signature={"s": "unasked"}))), 2),  # its key would take another question
        (seal(seal(signature={"l": "5"})), 2),
        (chain(OLDER_CHECKED + 1), 0),
        (chain(OLDER_CHECKED + 2), 2),
    ],
    ids=[
        "one",
        "all",
        "first changed",
        "second changed",
        "first changed, two on top",
        "changed twice",
        "unreadable",
        "expired",
        "signs seals",
        "the second is no good, the first is",
        "another body",
        "another key",
        "cut",
        "as many as are checked",
        "more",
    ],
)
async def test_the_oldest_pass(message: bytes, oldest: int) -> None:
    dns = resolver()
    passed = await verify(dns, incoming(message), NOW)
    assert (passed.status, passed.oldest_pass) == (ArcStatus.PASS, oldest)
    assert dns.asked == [(NAME, "TXT")]


async def test_fifty_sets(operations: list[bytes]) -> None:
    message = MESSAGE
    for n in range(MAX_SETS):
        tags = {"s": f"s{n}"}
        message = seal(message, signature=tags, cover=tags)
    records = {f"s{n}._domainkey.{DOMAIN}": rsa_key().record for n in range(MAX_SETS)}
    dns = resolver(records)
    passed = await verify(dns, incoming(message), NOW)
    assert (passed.status, passed.instances) == (ArcStatus.PASS, MAX_SETS)
    assert len(dns.asked) == MAX_SETS
    assert len(operations) == 1 + MAX_SETS + OLDER_CHECKED


def broken_chains() -> Iterator[tuple[str, Callable[[bytes], bytes]]]:
    """Row 46: what costs no question and no public-key operation."""
    yield "one set too many", lambda message: seal(message, cover={"i": "50"}, signature={"i": "50"})
    yield "a duplicate", lambda message: message.replace(b": i=7", b": i=8")
    yield "a gap", lambda message: message.replace(b": i=7", b": i=x")
    yield "thousands", lambda message: b"ARC-Seal: i=1; b=x\r\n" * 9000 + message


@pytest.mark.parametrize("breaking", [pytest.param(each, id=name) for name, each in broken_chains()])
async def test_broken_chains_cost_nothing(breaking: Callable[[bytes], bytes], operations: list[bytes]) -> None:
    dns = resolver()
    failed = await verify(dns, incoming(breaking(chain(MAX_SETS))), NOW)
    assert (failed.status, failed.temporary) == (ArcStatus.FAIL, False)
    assert (dns.asked, operations) == ([], [])


GOOD = seal(seal(chain(1), ed25519_key(), signature={"s": "ed"}, cover={"s": "ed"}), signature=OTHER)
RECORDS = {NAME: rsa_key().record, OTHER_NAME: rsa_key().record, f"ed._domainkey.{DOMAIN}": ed25519_key().record}
PARTS = [field.raw for field in split_header(GOOD).fields if field.name.startswith(b"arc-")]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    part = draw(st.sampled_from(PARTS))
    start = draw(st.integers(0, len(part) - 1))
    return part[:start] + draw(st.binary(max_size=3)) + part[start + draw(st.integers(0, 3)) :]


arc_fields = st.one_of(
    st.sampled_from(PARTS),
    mutated(),
    st.builds(
        lambda name, value: name + b": " + value + b"\r\n",
        st.sampled_from([b"ARC-Seal", b"arc-message-signature", b"ARC-Authentication-Results"]),
        st.one_of(st.binary(max_size=40), st.integers(0, 60).map(lambda n: b"i=%d; a=rsa-sha256; cv=pass" % n)),
    ),
)


@given(
    st.one_of(
        st.lists(arc_fields, max_size=12),
        st.permutations(PARTS),
        st.tuples(st.integers(0, 8), mutated()).map(lambda pair: [*PARTS[: pair[0]], pair[1], *PARTS[pair[0] + 1 :]]),
    ),
    st.sets(st.sampled_from(sorted(RECORDS))),
    st.sets(st.sampled_from(sorted(RECORDS))),
)
async def test_any_fields_give_a_result_at_a_bounded_price(
    parts: list[bytes], known: set[str], silent: set[str]
) -> None:
    dns = replace(resolver({name: RECORDS[name] for name in known}), failing=frozenset(silent))
    answer = await verify(dns, incoming(b"".join(parts) + MESSAGE), NOW)
    assert bool(answer.reason) == (answer.status is not ArcStatus.PASS)
    assert answer.temporary <= bool(silent)
    assert len(dns.asked) == len(set(dns.asked)) <= len(RECORDS)
    assert 0 <= answer.oldest_pass <= answer.instances <= MAX_SETS
    assert bool(answer.sealers) == bool(answer.sealer) == (answer.status is ArcStatus.PASS)


async def test_the_good_chain_of_the_property() -> None:
    assert (await result(GOOD, RECORDS)).status is ArcStatus.PASS
