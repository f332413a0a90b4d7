"""Why a TLS handshake with a client failed, in words for an administrator. Pure but for the types of errors."""

import ssl

_HUNG_UP = "the client hung up"
_TIMED_OUT = "timed out"


def failure(error: Exception | None) -> str:
    """Say what went wrong; None: the connection was lost before anything could.

    OpenSSL's reasons are given as words ("wrong version number"), without where in its sources they arose.
    """
    match error:
        case (
            TimeoutError() | ConnectionAbortedError()
        ):  # the latter is asyncio's word for a handshake that takes too long
            return _TIMED_OUT
        case None | ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ConnectionError():
            return _HUNG_UP
        case ssl.SSLError(reason=str(reason)) if reason:
            return reason.lower().replace("_", " ")
        case OSError(strerror=str(text)) if text and not isinstance(error, ssl.SSLError):
            return text.lower()
    return "no reason was given"
