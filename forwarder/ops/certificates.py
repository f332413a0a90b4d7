"""The certificate that clients are shown after STARTTLS: the configured one, or one that we sign ourselves.

Contract: `ServerCertificate(...)` and `reload` raise `CertificateError` with a plain reason. `current` never raises: it
looks every few seconds whether the files have changed, and a new pair that cannot be used is reported once while the
last good one stays. Files that are replaced one after the other (certificate, then key) are therefore harmless.

What was read is kept as a `Pair`, so that another process can be given exactly what is in use, whatever has become of
the files since; `context_of` makes a context of it there.

Left out on purpose: client certificates (never asked for: some senders break off), OCSP stapling, and fetching
certificates, which certbot and its kin do.
"""

import os
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

SELF_SIGNED = "self-signed.pem"  # in state_dir: key and certificate in one file, so that they never mismatch

_LOOK_EVERY = 3.0  # seconds
_VALID = timedelta(days=3650)
_RENEW = timedelta(days=30)
_MAX_COMMON_NAME = 64  # RFC 5280 A.1 ub-common-name

# Forward secrecy and nothing broken (RFC 9325 4.2); CBC suites stay, for the alternative on port 25 is clear text.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:!aNULL:!eNULL:!MD5:!DSS:!PSK"

_Stamp = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """A certificate or key cannot be used; the text names the file and says why."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, with what leads to its root, and its key, both in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


class ServerCertificate:
    """The TLS context for new connections. `report` is told, once, of a changed pair that cannot be used."""

    def __init__(
        self,
        hostname: str,
        state_dir: Path,
        certificate: Path | None,
        key: Path | None,
        *,
        report: Callable[[str], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if certificate is None:
            certificate = key = _self_signed(hostname, state_dir)
        self._certificate = certificate
        self._key = key or certificate
        self._report = report
        self._monotonic = monotonic
        self._next_look = 0.0
        self._seen: _Stamp = ()
        self._context: ssl.SSLContext
        self._pair: Pair
        self.reload()

    @property
    def pair(self) -> Pair:
        """What the context in use was made of."""
        return self._pair

    def current(self) -> ssl.SSLContext:
        """Give the context for a connection that begins now."""
        if self._monotonic() >= self._next_look:
            self._next_look = self._monotonic() + _LOOK_EVERY
            if self._stamp() != self._seen:
                self._try()
        return self._context

    def reload(self) -> None:
        """Read both files again; raise `CertificateError` and keep what there was."""
        self._seen = self._stamp()
        self._next_look = self._monotonic() + _LOOK_EVERY
        self._context, self._pair = _read(self._certificate, self._key)

    def _try(self) -> None:
        try:
            self.reload()
        except CertificateError as error:
            self._report(f"{error}; the certificate in use stays")

    def _stamp(self) -> _Stamp:
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return status.st_ino, status.st_mtime_ns, status.st_size


def context_of(pair: Pair, certificate: str = "the certificate", key: str = "the key") -> ssl.SSLContext:
    """Make a context; raise `CertificateError`, which calls the two by these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CIPHERS)
    try:
        with _in_memory(pair.certificate) as certificate_file, _in_memory(pair.key) as key_file:
            # Without a password at hand OpenSSL would ask for one at the terminal.
            context.load_cert_chain(certificate_file, key_file, password=lambda: "")
    except ssl.SSLError as error:
        raise CertificateError(_reason(certificate, key, error)) from None
    except OSError as error:
        raise CertificateError(f"{certificate}: {error.strerror}") from None
    return context


@contextmanager
def _in_memory(octets: bytes) -> Iterator[str]:
    """Give the name of a file that no disk has: OpenSSL as Python has it reads nothing but files."""
    descriptor = os.memfd_create("certificate")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(octets)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _read(certificate: Path, key: Path) -> tuple[ssl.SSLContext, Pair]:
    octets = [_octets(path) for path in (certificate, key)]
    if key.stat().st_mode & stat.S_IROTH:
        raise CertificateError(f"{key}: anybody on this machine can read the key: chmod o-rwx")
    pair = Pair(*octets)
    return context_of(pair, str(certificate), str(key)), pair


def _octets(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}") from None


def _reason(certificate: str, key: str, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key}: not the key of the certificate {certificate}"
    return f"{certificate}, {key}: not a certificate and its key in PEM, the key without a password"


def _self_signed(hostname: str, state_dir: Path) -> Path:
    path = state_dir / SELF_SIGNED
    try:
        if not _still_good(path, hostname):
            state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            _write(path, _make(hostname))
    except OSError as error:
        raise CertificateError(f"{path}: the self-signed certificate: {error.strerror}") from None
    return path


def _still_good(path: Path, hostname: str) -> bool:
    from cryptography import x509  # 40 ms, and only needed where no certificate is configured

    if not path.exists():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        _read(path, path)
    except (ValueError, x509.ExtensionNotFound, CertificateError):
        return False
    named = hostname in names.get_values_for_type(x509.DNSName)
    return named and certificate.not_valid_after_utc > datetime.now(UTC) + _RENEW


def _make(hostname: str) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    common = [x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname)] if len(hostname) <= _MAX_COMMON_NAME else []
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(x509.Name(common), x509.Name(common))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=not common)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret + certificate.public_bytes(pem)


def _write(path: Path, octets: bytes) -> None:
    """Write the file whole or not at all, readable by us alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
