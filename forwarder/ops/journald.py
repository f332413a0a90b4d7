"""journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram is one entry of named fields.

`Journal.write` never blocks and never raises: journald may be away, restarting or stuck, and mail must go on. Entries
that are too large for a datagram are refused by the kernel and count as not written; the protocol's way around that,
a sealed memory file, is left out because the log bounds its values (a few kilobytes an entry) long before.
"""

import os
import socket
import stat
from collections.abc import Iterable, Mapping

SOCKET = "/run/systemd/journal/socket"


class Journal:
    """Sends entries to journald. The socket is not connected, so that a restart of journald goes unnoticed."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def write(self, fields: Iterable[tuple[str, str]]) -> bool:
        """Send one entry; say whether journald has it."""
        try:
            self._socket.sendto(encode(fields), self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Write fields as `NAME=value` lines; a value with a newline goes by length, so that it cannot become a field."""
    lines = []
    for name, value in fields:
        octets = value.encode("utf-8", "backslashreplace")
        if b"\n" in octets:
            lines.append(b"%b\n%b%b\n" % (name.encode(), len(octets).to_bytes(8, "little"), octets))
        else:
            lines.append(b"%b=%b\n" % (name.encode(), octets))
    return b"".join(lines)


def is_behind(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether that descriptor leads to the journal: systemd names its device and inode in $JOURNAL_STREAM."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return stat.S_ISSOCK(status.st_mode) and (device, inode) == (str(status.st_dev), str(status.st_ino))
