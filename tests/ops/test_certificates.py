"""The server's certificate: made, read, replaced while running, and never lost by a bad edit."""

import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from forwarder.ops.certificates import SELF_SIGNED, CertificateError, ServerCertificate
from tests.fakes import FakeClock


def shown(context: ssl.SSLContext, **client: object) -> tuple[x509.Certificate, str | None]:
    """Shake hands over a socket pair; give the certificate that a client sees, and the protocol."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def serve() -> None:
        try:
            with context.wrap_socket(ours, server_side=True) as wrapped:
                wrapped.recv(1)
        except OSError:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_mode = ssl.CERT_NONE
    for name, value in client.items():
        setattr(asking, name, value)
    try:
        theirs.settimeout(10)
        with theirs, asking.wrap_socket(theirs) as wrapped:
            der = wrapped.getpeercert(binary_form=True)
            assert der is not None
            return x509.load_der_x509_certificate(der), wrapped.version()
    finally:
        thread.join()


def names(context: ssl.SSLContext) -> list[str]:
    certificate, _ = shown(context)
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    )


def refuse_to_report(text: str) -> None:
    raise AssertionError(text)


def write_pair(folder: Path, name: str, *, key_of: str | None = None) -> tuple[Path, Path]:
    """Replace the pair as certbot does: new files, renamed."""
    authority = trustme.CA()
    pair = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
    other = authority.issue_cert("x.example", key_type=trustme.KeyType.ECDSA) if key_of else pair
    for path, octets in (
        (folder / "cert.pem", pair.cert_chain_pems[0].bytes()),
        (folder / "key.pem", other.private_key_pem.bytes()),
    ):
        new = path.with_suffix(".new")
        new.write_bytes(octets)
        new.chmod(0o600)
        new.rename(path)
    return folder / "cert.pem", folder / "key.pem"


def test_without_a_certificate_one_is_made_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    made = ServerCertificate("mx.example", state, None, None, report=refuse_to_report)
    certificate, version = shown(made.current())
    assert version == "TLSv1.3"
    assert certificate.subject.rfc4514_string() == "CN=mx.example"
    assert names(made.current()) == ["mx.example"]
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days > 3649
    assert [path.name for path in state.iterdir()] == [SELF_SIGNED]
    assert stat.S_IMODE((state / SELF_SIGNED).stat().st_mode) == 0o600
    again = ServerCertificate("mx.example", state, None, None, report=refuse_to_report)
    assert shown(again.current())[0] == certificate
    other = ServerCertificate("mx2.example", state, None, None, report=refuse_to_report)
    assert names(other.current()) == ["mx2.example"]


def test_one_that_is_about_to_expire_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("forwarder.ops.certificates._VALID", timedelta(days=20))
        short = ServerCertificate("mx.example", tmp_path, None, None, report=refuse_to_report)
    again = ServerCertificate("mx.example", tmp_path, None, None, report=refuse_to_report)
    assert shown(short.current())[0] != shown(again.current())[0]


def test_a_damaged_self_signed_certificate_is_made_again(tmp_path: Path) -> None:
    (tmp_path / SELF_SIGNED).write_text("torn")
    made = ServerCertificate("mx.example", tmp_path, None, None, report=refuse_to_report)
    assert names(made.current()) == ["mx.example"]


def test_a_host_name_too_long_for_a_common_name(tmp_path: Path) -> None:
    name = "a" * 60 + ".example.org"
    made = ServerCertificate(name, tmp_path, None, None, report=refuse_to_report)
    assert names(made.current()) == [name]


def test_old_protocols_are_refused_and_clients_are_asked_for_nothing(tmp_path: Path) -> None:
    context = ServerCertificate("mx.example", tmp_path, None, None, report=refuse_to_report).current()
    assert shown(context, maximum_version=ssl.TLSVersion.TLSv1_2)[1] == "TLSv1.2"
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    suites = [suite["name"] for suite in context.get_ciphers()]
    assert suites and not [
        name for name in suites if "RC4" in name or "NULL" in name or not name.startswith(("TLS_", "ECDHE", "DHE"))
    ]


def test_files_that_change_are_read_again(tmp_path: Path) -> None:
    clock = FakeClock()
    pair = write_pair(tmp_path, "one.example")
    certificate = ServerCertificate("mx", tmp_path, *pair, report=refuse_to_report, monotonic=clock.monotonic)
    first = certificate.current()
    clock.advance(10)
    assert certificate.current() is first  # nothing changed
    write_pair(tmp_path, "two.example")
    assert certificate.current() is first  # looked a moment ago
    clock.advance(3)
    assert names(certificate.current()) == ["two.example"]


def break_key(folder: Path) -> None:
    write_pair(folder, "two.example", key_of="another")


def remove_key(folder: Path) -> None:
    (folder / "key.pem").unlink()


def tear(folder: Path) -> None:
    (folder / "cert.pem").write_text("-----BEGIN CERTIFICATE-----\nMII")


def publish(folder: Path) -> None:
    (folder / "key.pem").rename(folder / "old")
    (folder / "key.pem").write_bytes((folder / "old").read_bytes())
    (folder / "key.pem").chmod(0o644)


def encrypt(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (break_key, "key.pem: not the key of the certificate"),
        (remove_key, "key.pem: No such file"),
        (tear, "not a certificate and its key in PEM"),
        (publish, "anybody on this machine can read the key"),
        (encrypt, "without a password"),
    ],
)
def test_a_broken_new_pair_is_reported_once_and_the_last_good_one_stays(
    tmp_path: Path, spoil: Callable[[Path], None], reason: str
) -> None:
    clock, reports = FakeClock(), list[str]()
    pair = write_pair(tmp_path, "one.example")
    certificate = ServerCertificate("mx", tmp_path, *pair, report=reports.append, monotonic=clock.monotonic)
    first = certificate.current()
    spoil(tmp_path)
    for _ in range(5):
        clock.advance(10)
        assert certificate.current() is first
    assert len(reports) == 1 and reason in reports[0]
    with pytest.raises(CertificateError, match=reason):
        certificate.reload()
    assert certificate.current() is first
    with pytest.raises(CertificateError, match=reason):
        ServerCertificate("mx", tmp_path, *pair, report=reports.append)
    write_pair(tmp_path, "three.example")
    clock.advance(10)
    assert names(certificate.current()) == ["three.example"]
    assert len(reports) == 1


def test_reload_does_not_wait(tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "one.example")
    certificate = ServerCertificate("mx", tmp_path, *pair, report=refuse_to_report, monotonic=FakeClock().monotonic)
    write_pair(tmp_path, "two.example")
    certificate.reload()
    assert names(certificate.current()) == ["two.example"]


def test_a_state_dir_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CertificateError, match="self-signed certificate: "):
        ServerCertificate("mx.example", tmp_path / "file", None, None, report=refuse_to_report)
    assert os.listdir(tmp_path) == ["file"]
