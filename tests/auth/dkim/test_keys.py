"""Keys of every strength and shape (row 45), and what is no key."""

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim import keys
from forwarder.auth.dkim.keys import Cause, PublicKey, Refusal, look_up, published
from tests.auth.dkim.signer import NAME, Key, ed25519_key, rsa_key
from tests.fakes import FakeResolver


def der(tag: int, octets: bytes) -> bytes:
    size = len(octets)
    prefix = bytes([size]) if size < 128 else (0x80 + (size.bit_length() + 7) // 8).to_bytes(1, "big")
    longer = b"" if size < 128 else size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + prefix + longer + octets


def number(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def bare(modulus: int, exponent: int) -> bytes:
    """RSAPublicKey of RFC 8017 A.1.1."""
    return der(0x30, number(modulus) + number(exponent))


def wrapped(modulus: int, exponent: int) -> bytes:
    """SubjectPublicKeyInfo of RFC 5280."""
    algorithm = der(0x30, bytes.fromhex("06092a864886f70d010101") + b"\x05\x00")
    return der(0x30, algorithm + der(0x03, b"\x00" + bare(modulus, exponent)))


def record(octets: bytes, kind: str = "rsa") -> bytes:
    return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}".encode()


def modulus(bits: int) -> int:
    return (1 << (bits - 1)) + 12345


@pytest.mark.parametrize("shape", [bare, wrapped])
@pytest.mark.parametrize(
    ("bits", "exponent", "reason"),
    [
        (512, 65537, "512 bits"),
        (1023, 65537, "1023 bits"),
        (1024, 3, ""),
        (2048, 65537, ""),
        (4096, 2**31 + 1, ""),
        (4097, 65537, "4097 bits"),
        (8192, 65537, "larger than 4096|8192 bits"),
        (16384, 65537, "larger than 4096"),
        (1024, 2**32 + 1, "exponent"),
        (2048, 2**2000 + 1, "exponent"),
        (4096, 2**4000 + 1, "larger than 4096"),
    ],
)
def test_rsa_keys(shape: Callable[[int, int], bytes], bits: int, exponent: int, reason: str) -> None:
    key = published(record(shape(modulus(bits), exponent)))
    if not reason:
        assert isinstance(key, PublicKey)
        assert not key.made(b"x" * (bits // 8), b"octets")
    else:
        assert isinstance(key, Refusal)
        assert key.cause is Cause.WEAK
        assert any(part in key.reason for part in reason.split("|"))


@pytest.mark.parametrize("exponent", [0, 1, 2, 65536])
def test_exponents_that_no_key_has(exponent: int) -> None:
    key = published(record(wrapped(modulus(2048), exponent)))
    assert isinstance(key, Refusal)
    assert key.cause is Cause.UNUSABLE


def test_other_keys_than_they_say() -> None:
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    for octets in (b"rubbish", curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), b"\x30" * 1000):
        assert published(record(octets)) == Refusal(Cause.UNUSABLE, "the key is not an RSA key")
    for octets in (b"x" * 31, b"x" * 33, wrapped(modulus(2048), 65537)):
        assert published(record(octets, "ed25519")) == Refusal(Cause.UNUSABLE, "the key is not an Ed25519 key")


def test_revoked_and_malformed() -> None:
    assert published(b"v=DKIM1; p=") == Refusal(Cause.UNUSABLE, "the key was revoked")
    assert published(b"v=spf1 -all") == Refusal(
        Cause.UNUSABLE, "the key record cannot be used: it is not of version DKIM1"
    )


@pytest.mark.parametrize("make", [lambda: rsa_key(1024), rsa_key, ed25519_key], ids=["1024", "2048", "ed25519"])
def test_signatures(make: Callable[[], Key]) -> None:
    private = make()
    public = published(private.record.encode())
    assert isinstance(public, PublicKey)
    assert public.algorithm == f"{private.kind}-sha256"
    signature = private.sign(b"octets")
    assert public.made(signature, b"octets")
    for wrong in (signature[:-1], signature + b"\x00", b"", signature[::-1], b"\xff" * len(signature)):
        assert not public.made(wrong, b"octets")
    assert not public.made(signature, b"octetS")


@given(st.binary(max_size=80), st.sampled_from(["rsa", "ed25519"]))
def test_a_key_or_a_reason(octets: bytes, kind: str) -> None:
    key = published(record(octets, kind))
    if isinstance(key, PublicKey):
        assert not key.made(b"", b"")
    else:
        assert key.reason


@given(st.binary(max_size=20), st.integers(0, 290))
def test_a_damaged_key_or_a_reason(damage: bytes, place: int) -> None:
    octets = wrapped(modulus(2048), 65537)
    key = published(record(octets[:place] + damage + octets[place + len(damage) :]))
    assert isinstance(key, PublicKey) or key.reason


def test_keys_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[bytes] = []

    def load(octets: bytes) -> object:
        loaded.append(octets)
        return load_der_public_key(octets)

    monkeypatch.setattr(keys, "load_der_public_key", load)
    fresh = record(bare(modulus(2047), 17))
    assert published(fresh) is published(fresh)
    assert len(loaded) == 1
    assert published(b"n=" + b"x" * 5000 + b";" + fresh.partition(b";")[2]) == published(fresh)


def test_a_long_record_is_not_kept() -> None:
    long = b"n=" + b"x" * 5000 + b"; p="
    assert published(long) is not published(long)


RSA, EDWARDS = "rsa-sha256", "ed25519-sha256"


async def asked(algorithm: str, *records: str, failing: bool = False) -> tuple[PublicKey, ...] | Refusal:
    resolver = FakeResolver({(NAME, "TXT"): list(records)}, frozenset({NAME} if failing else ()))
    answer = await look_up(resolver, NAME, algorithm)
    assert resolver.asked == [(NAME, "TXT")]
    return answer


async def test_looking_up_what_is_not_there() -> None:
    refusal = Refusal(Cause.UNUSABLE, f"there is no key at {NAME}")
    assert await look_up(FakeResolver(), NAME, RSA) == refusal
    assert await look_up(FakeResolver({("x." + NAME, "TXT"): ["x"]}), NAME, RSA) == refusal


async def test_looking_up_without_an_answer() -> None:
    refusal = await asked(RSA, rsa_key().record, failing=True)
    assert refusal == Refusal(Cause.TEMPORARY, "its key could not be looked up: the name server did not answer")


async def test_looking_up_one_of_several() -> None:
    spf, edwards, good = "v=spf1 -all", ed25519_key().record, rsa_key().record
    for algorithm, wanted in ((RSA, good), (EDWARDS, edwards)):
        assert await asked(algorithm, spf, edwards, "rubbish", good) == (published(wanted.encode()),)
    other = await asked(RSA, edwards)
    assert isinstance(other, Refusal)
    assert "another algorithm" in other.reason


async def test_looking_up_among_too_many() -> None:
    several = [rsa_key(1024, n).record for n in range(4)]
    assert await asked(RSA, *several) == tuple(published(text.encode()) for text in several[:3])
    assert isinstance(await asked(RSA, *["rubbish"] * 10, several[0]), Refusal)
    assert await asked(RSA, *["rubbish"] * 9, several[0]) == (published(several[0].encode()),)


async def test_the_reason_that_is_told() -> None:
    weak = record(bare(modulus(512), 3)).decode()
    assert await asked(RSA, "v=DKIM1; p=", "rubbish") == Refusal(Cause.UNUSABLE, "the key was revoked")
    refusal = await asked(RSA, "rubbish", weak)
    assert isinstance(refusal, Refusal)
    assert refusal.cause is Cause.WEAK
