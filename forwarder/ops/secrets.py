"""Files that hold secrets: found, checked and read, never shown.

A secret comes from a systemd credential of the file's name where there is one (`$CREDENTIALS_DIRECTORY`), otherwise
from the file itself, which must be a regular file of ours or root's that nobody else can read. Symbolic links are not
followed. `SecretError` says what is wrong without a word of the contents; it is about the machine's set-up, so
it is permanent until somebody changes that.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

MIN_SRS_SECRET = 16  # characters: 80 bits and more in any alphabet that a person would use
_MAX_SIZE = 65_536  # octets


class SecretError(Exception):
    """A secret cannot be had; the text names the file and says what was expected of it."""


def srs_secrets(path: Path, environ: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """Read a file of SRS secrets, one a line: the first signs, all verify. Blank lines and `#` comments do not count.

    Raises `SecretError`.
    """
    secrets: list[bytes] = []
    for number, line in enumerate(read_secret(path, environ).split(b"\n"), 1):
        secret = line.strip()
        if not secret or secret.startswith(b"#"):
            continue
        if len(secret) < MIN_SRS_SECRET:
            raise SecretError(f"{path}: line {number}: expected a secret of at least {MIN_SRS_SECRET} characters")
        if secret in secrets:
            raise SecretError(f"{path}: line {number}: expected each secret once: this one stands further up")
        secrets.append(secret)
    if not secrets:
        raise SecretError(f"{path}: expected at least one secret, on a line of its own")
    return tuple(secrets)


def password(path: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    """Read a file that holds one password; what ends its line is no part of it. Raises `SecretError`."""
    secret = read_secret(path, environ).removesuffix(b"\n").removesuffix(b"\r")
    if not secret or b"\n" in secret or b"\0" in secret:
        raise SecretError(f"{path}: expected one line, the password")
    return secret


def read_secret(path: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    """Give the octets of a secret, from the credential of its name or from the file. Raises `SecretError`."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(folder) / path.name if folder else None
    if credential is not None and os.path.lexists(credential):
        return _read(credential, None)  # systemd sets its owner and mode, and its folder is closed
    return read_private(path)


def read_private(path: Path, *owners: int) -> bytes:
    """Give the octets of a private file of root's, ours, or one of these users'. Raises `SecretError`."""
    return _read(path, frozenset({0, os.geteuid(), *owners}))


def _read(path: Path, owners: frozenset[int] | None) -> bytes:
    try:
        # Without O_NONBLOCK a named pipe put in the file's place would hold us up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise SecretError(f"{path}: expected a file that can be read: {reason}") from None
    try:
        flaw = _flaw(os.fstat(descriptor), owners)
        if flaw:
            raise SecretError(f"{path}: {flaw}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            octets = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise SecretError(f"{path}: expected a file that can be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if len(octets) > _MAX_SIZE:
        raise SecretError(f"{path}: expected at most {_MAX_SIZE} octets")
    return octets


def _flaw(status: os.stat_result, owners: frozenset[int] | None) -> str:
    """Say what is wrong with the file itself, "" for nothing; `owners` None: it may be anybody's and open."""
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "expected a regular file"
    if owners is not None and mode & 0o077:
        return f"expected a file that its owner alone can read (its mode is {mode:04o}): chmod 600"
    if owners is not None and status.st_uid not in owners:
        return f"expected a file of root's or of the user who runs this (its owner is user {status.st_uid})"
    return ""
