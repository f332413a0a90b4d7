"""Reasons for failed handshakes: words, and never where in a source file."""

import errno
import ssl

import pytest

from forwarder.listener.handshake import failure


def openssl(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] something (_ssl.c:1006)")
    error.reason = reason  # type: ignore[assignment]  # None for an error that OpenSSL has no word for
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (openssl("WRONG_VERSION_NUMBER"), "wrong version number"),
        (openssl("HTTP_REQUEST"), "http request"),
        (openssl(None), "no reason was given"),
        (openssl(""), "no reason was given"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)"), "the client hung up"),
        (ConnectionResetError(), "the client hung up"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "the client hung up"),
        (BrokenPipeError(), "the client hung up"),
        (None, "the client hung up"),
        (ConnectionAbortedError("SSL handshake is taking longer than 30.0 seconds: aborting"), "timed out"),
        (TimeoutError(), "timed out"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to host"),
        (OSError(), "no reason was given"),
    ],
    ids=repr,
)
def test_reasons(error: Exception | None, reason: str) -> None:
    assert failure(error) == reason
