"""Keys to sign with: which are taken, and what is said of the others."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dkim.keys import PublicKey, published
from forwarder.rewrite import signing_key as module
from forwarder.rewrite.signing_key import SigningKey, SigningKeyError, load_key, public_record
from tests.auth.dkim.signer import ed25519_key, rsa_key
from tests.rewrite.judges import pem

RSA, CURVE = pem(rsa_key().private), pem(ed25519_key().private)


def refusal(octets: bytes, domain: str = "ours.test", selector: str = "s1") -> str:
    with pytest.raises(SigningKeyError) as caught:
        load_key(octets, domain, selector)
    return str(caught.value)


@pytest.mark.parametrize(
    ("octets", "kind"),
    [(RSA, "rsa"), (pem(rsa_key().private, PrivateFormat.TraditionalOpenSSL), "rsa"), (CURVE, "ed25519")],
)
def test_what_is_published_accepts_what_is_signed(octets: bytes, kind: str) -> None:
    key = load_key(octets, "Ours.TEST.", "S1")
    assert (key.domain, key.selector, key.name) == ("ours.test", "s1", "s1._domainkey.ours.test")
    assert (key.kind, key.algorithm) == (kind, f"{kind}-sha256")
    assert public_record(key) == {"rsa": rsa_key(), "ed25519": ed25519_key()}[kind].record
    reader = published(public_record(key).encode())
    assert isinstance(reader, PublicKey)
    assert reader.made_digest(key.sign(b"d" * 32), b"d" * 32)
    assert not reader.made_digest(key.sign(b"d" * 32), b"e" * 32)


def test_sizes_of_rsa_keys() -> None:
    assert "1024 bits, and 2048 to 4096 are believed" in refusal(pem(rsa_key(1024).private))
    load_key(pem(rsa_key(4096).private), "ours.test", "s1")
    large = rsa.generate_private_key(65537, 5120)
    assert "5120 bits" in refusal(pem(large))


def test_what_is_wrong_and_what_to_do() -> None:
    private = rsa_key().private
    encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    begin, _, rest = RSA.partition(b"\n")
    another = "make one with `forwarder keys generate`"
    assert refusal(b"") == refusal(b"\xff\x00junk") == f"it is no private key in PEM form: {another}"
    assert refusal(encrypted).startswith("it is encrypted, and there is no password for it: write it again without")
    assert refusal(public) == f"it is the public half of a key: {another}"
    assert refusal(begin + b"\n" + rest[64:]) == f"it is a private key that cannot be read: {another}"
    curve = pem(ec.generate_private_key(ec.SECP256R1()))
    assert refusal(curve) == f"it is neither an RSA nor an Ed25519 key: {another}"


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a\r\nX: y", "-a", "a..b", "x" * 64, "ä\n"])
def test_names_that_are_none(name: str) -> None:
    assert "the domain is not a name" in refusal(RSA, domain=name)
    assert "the selector is not a name" in refusal(RSA, selector=name)


def test_a_name_that_dns_cannot_hold() -> None:
    assert "longer than DNS allows" in refusal(RSA, domain=".".join(["x" * 60] * 4))
    assert load_key(RSA, "müller.test", "s").domain == "xn--mller-kva.test"


def damaged(**changes: int) -> bytes:
    numbers = rsa_key().private.private_numbers()  # type: ignore[union-attr]
    parts = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    parts |= {name: parts[name] + by for name, by in changes.items()}
    made = rsa.RSAPrivateNumbers(**parts, public_numbers=numbers.public_numbers)
    return pem(made.private_key(unsafe_skip_rsa_key_validation=True), PrivateFormat.TraditionalOpenSSL)


def test_a_damaged_key_is_found_out_or_does_no_harm() -> None:
    assert "its parts do not fit together" in refusal(damaged(d=2, dmp1=2, dmq1=2))
    for name in ("d", "dmp1", "dmq1", "iqmp"):  # OpenSSL checks its result, and has a second way to it
        key = load_key(damaged(**{name: 2}), "ours.test", "s1")
        reader = published(public_record(key).encode())
        assert isinstance(reader, PublicKey)
        assert reader.made_digest(key.sign(b"d" * 32), b"d" * 32)


@pytest.mark.parametrize("fault", [ValueError("no"), None])
def test_a_key_that_signs_something_else_is_refused(fault: ValueError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def sign(key: SigningKey, digest: bytes) -> bytes:
        if fault:
            raise fault
        return bytes(256)

    monkeypatch.setattr(SigningKey, "sign", sign)
    assert "its parts do not fit together" in refusal(RSA)


def test_nothing_shows_the_key() -> None:
    key = load_key(CURVE, "ours.test", "s1")
    assert repr(key) == "SigningKey(domain='ours.test', selector='s1')"


def test_a_key_is_not_checked_for_primes(monkeypatch: pytest.MonkeyPatch) -> None:
    load = serialization.load_pem_private_key
    asked = []

    def counting(*given: Any, **named: Any) -> object:
        asked.append(named)
        return load(*given, **named)

    monkeypatch.setattr(module, "load_pem_private_key", counting)
    load_key(RSA, "ours.test", "s1")
    assert asked == [{"unsafe_skip_rsa_key_validation": True}]


@given(st.integers(0, len(CURVE)), st.integers(0, 4), st.binary(max_size=4))
def test_any_file_gives_a_key_or_a_reason(start: int, length: int, octets: bytes) -> None:
    try:
        load_key(CURVE[:start] + octets + CURVE[start + length :], "ours.test", "s1")
    except SigningKeyError as error:
        assert str(error).isprintable()
