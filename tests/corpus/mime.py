"""Odd structures: broken MIME, nested parts, signatures that any change would break."""

from collections.abc import Iterator

from tests.corpus.odd import HEADER, Odd, odd


def mime() -> Iterator[Odd]:
    """Give them."""
    yield from _broken()
    yield from _nested()
    yield from _signed()


def _part(content_type: bytes, octets: bytes, name: str) -> Odd:
    return odd(name, HEADER + b"MIME-Version: 1.0\r\nContent-Type: " + content_type + b"\r\n\r\n" + octets)


def _mixed(boundary: bytes, octets: bytes, name: str) -> Odd:
    return _part(b'multipart/mixed; boundary="' + boundary + b'"', octets, name)


def _broken() -> Iterator[Odd]:
    text = b"Content-Type: text/plain\r\n\r\ntext\r\n"
    yield _mixed(b"b", b"--b\r\n" + text, "boundary-not-closed")
    yield _mixed(b"b", b"--b\r\n" + text + b"--b--", "boundary-without-line-end")
    yield _mixed(b"", b"--\r\n" + text + b"----\r\n", "boundary-empty")
    yield _mixed(b"never", text, "boundary-never-used")
    yield _mixed(b".b", b".\r\n--.b\r\n" + text + b".--.b--\r\n--.b--\r\n.\r\n", "boundary-with-dots")
    yield _mixed(b"a b ", b"--a b \r\n" + text + b"--a b -- \r\n", "boundary-with-spaces")
    yield _mixed(b"x" * 300, b"--" + b"x" * 300 + b"\r\n" + text, "boundary-of-300")
    yield _mixed(b"b", b"preamble\r\n.\r\n--b\r\n\r\n--b--\r\nepilogue\r\n.\r\n", "preamble-and-epilogue")
    yield _part(b"text/plain; charset=no-such-charset", b"text\r\n", "charset-unknown")
    yield _part(b"text/html; charset=utf-16", b"no utf-16\r\n", "charset-lied-about")
    yield _part(b";;;=;", b"text\r\n", "content-type-senseless")
    binary = b"application/octet-stream\r\nContent-Transfer-Encoding: binary"
    yield _part(binary, bytes(range(14, 256)) * 20, "transfer-encoding-binary")
    quoted = b"text/plain\r\nContent-Transfer-Encoding: quoted-printable"
    yield _part(quoted, b"soft=\r\n break=20\r\n.=\r\n=2E\r\ntrailing space \r\n=\r\n", "quoted-printable")
    base64 = b"image/png\r\nContent-Transfer-Encoding: base64"
    yield _part(base64, b"QUJD" * 5_000 + b"\r\n====\r\n", "base64-on-one-line")


def _nested() -> Iterator[Odd]:
    octets = b"text\r\n"
    for depth in range(100):
        octets = b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n%s--b%d--\r\n" % (
            depth,
            depth,
            octets,
            depth,
        )
    yield odd("nested-a-hundred-deep", HEADER + b"MIME-Version: 1.0\r\n" + octets)
    inner = HEADER + b"\r\nforwarded\r\n.\r\n"
    yield _part(b"message/rfc822", inner, "message-in-message")
    report = b'multipart/report; report-type=delivery-status; boundary="r"'
    status = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a.test\r\n\r\nStatus: 5.1.1\r\n"
    yield _part(report, b"--r\r\n" + status + b"--r--\r\n", "delivery-report")


def _signed() -> Iterator[Odd]:
    yield _part(
        b'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary="s"',
        b"--s\r\nContent-Type: text/plain \r\n\r\nsigned \t\r\n\r\n\r\n--s\r\n"
        b"Content-Type: application/pkcs7-signature;\r\n\tname=x\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\nMIIB\r\n--s--\r\n",
        "smime",
    )
    yield _part(
        b'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha512; boundary="p"',
        b"--p\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nS\xc3\xa4tze  \r\n-- \r\nme\r\n--p\r\n"
        b"Content-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n\r\niQ==\r\n=abcd\r\n"
        b"-----END PGP SIGNATURE-----\r\n--p--\r\n",
        "pgp-mime",
    )
    yield _part(
        b"text/plain",
        b"-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA512\r\n\r\n- -----dashes\r\n- From here\r\n.dot\r\n"
        b"trailing   \r\n"
        b"-----BEGIN PGP SIGNATURE-----\r\n\r\niQ==\r\n-----END PGP SIGNATURE-----",
        "pgp-clear-signed",
    )
