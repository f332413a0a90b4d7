"""OpenDKIM's library, called as its milter calls it: signs messages and verifies them with a given key record."""

import ctypes
from ctypes.util import find_library
from dataclasses import dataclass

_CANON = {"simple": 0, "relaxed": 1}
_RSA_SHA256 = 1
_WHOLE_BODY = ctypes.c_ssize_t(-1)
_OK = 0
_TEXT_SIZE = 8192

_KeyLookup = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_size_t
)


def _load() -> ctypes.CDLL | None:
    name = find_library("opendkim")
    if name is None:
        return None
    library = ctypes.CDLL(name)
    for function in ("dkim_init", "dkim_sign", "dkim_verify"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


LIBRARY = _load()


@dataclass(frozen=True, slots=True)
class OpenDkim:
    """`private` is PEM; `record` is what the verifier finds in DNS, whatever the name."""

    library: ctypes.CDLL
    private: bytes
    record: bytes

    def sign(self, message: bytes, canonical: str, selector: str, domain: str) -> bytes:
        """Give the message with a signature in front."""
        head, body = (_CANON[part] for part in canonical.split("/"))
        status, handle = ctypes.c_int(), ctypes.c_void_p(self.library.dkim_init(None, None))
        made = ctypes.c_void_p(
            self.library.dkim_sign(
                *(handle, b"id", None, self.private, selector.encode(), domain.encode()),
                *(head, body, _RSA_SHA256, _WHOLE_BODY, ctypes.byref(status)),
            )
        )
        assert status.value == _OK
        try:
            assert self._feed(made, message) == _OK
            text = ctypes.create_string_buffer(_TEXT_SIZE)
            label = b"DKIM-Signature: "
            assert (
                self.library.dkim_getsighdr(made, text, ctypes.c_size_t(_TEXT_SIZE), ctypes.c_size_t(len(label))) == _OK
            )
        finally:
            self.library.dkim_free(made)
            self.library.dkim_close(handle)
        return label + text.value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n" + message

    def verifies(self, message: bytes) -> bool:
        """Say whether a message has a good signature."""

        def find(_dkim: int, _signature: int, text: "ctypes._Pointer[ctypes.c_char]", size: int) -> int:
            ctypes.memmove(text, self.record[: size - 1] + b"\x00", len(self.record[: size - 1]) + 1)
            return _OK

        callback = _KeyLookup(find)
        status, handle = ctypes.c_int(), ctypes.c_void_p(self.library.dkim_init(None, None))
        self.library.dkim_set_key_lookup(handle, callback)
        made = ctypes.c_void_p(self.library.dkim_verify(handle, b"id", None, ctypes.byref(status)))
        assert status.value == _OK
        try:
            return self._feed(made, message) == _OK
        finally:
            self.library.dkim_free(made)
            self.library.dkim_close(handle)

    def _feed(self, made: ctypes.c_void_p, message: bytes) -> int:
        head, _, body = message.partition(b"\r\n\r\n")
        fields = head.replace(b"\r\n ", b"\n ").replace(b"\r\n\t", b"\n\t").split(b"\r\n")
        for field in (field.replace(b"\n", b"\r\n") for field in fields):
            if (status := self.library.dkim_header(made, field, ctypes.c_size_t(len(field)))) != _OK:
                return int(status)
        status = self.library.dkim_eoh(made)
        if status == _OK:
            status = self.library.dkim_body(made, body, ctypes.c_size_t(len(body)))
        return int(status) or int(self.library.dkim_eom(made, None))
