"""New DKIM keys, and their rotation: publish, sign, retire, remove.

    (none) ──make──> published ──switch──> signing ──switch of the next──> retired ──remove──> (none)

`steps` says what comes next for a domain; `make`, `switch` and `remove` each do one step and raise `KeysError`. Whoever
takes a step holds `locked`. That the record is in DNS, which `switch` takes for granted, is the caller's to see to.

A key signs from the gateway's next reload on. The record of a retired key stays until no mail signed with it can be
on its way any more, since receivers look for it when the mail arrives.

Files are made whole or not at all, for their owner alone. When root does it, they become the folder's owner's: keys
are kept for a gateway that runs as somebody else.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import count
from pathlib import Path

from forwarder.ops.keys import ROTATION, Entry, KeysError, KeyState, StoredKey, entries_text, read_entries
from forwarder.rewrite.signing_key import MIN_BITS, SigningKey, SigningKeyError, load_key

RSA, ED25519 = "rsa", "ed25519"
ON_THEIR_WAY = timedelta(days=2)  # how long others may keep mail after we have given it up

_LETTERS = {RSA: "s", ED25519: "e"}


class Action(Enum):
    """What a rotation does next."""

    MAKE = "make"  # a key that takes over later
    SWITCH = "switch"  # to the key that was made
    WAIT = "wait"  # until the retired key's record may go
    REMOVE = "remove"  # the retired key


@dataclass(frozen=True, slots=True)
class Step:
    """One step for one kind of key of a domain.

    `selector` is the new key of SWITCH, the retired one of WAIT and REMOVE, "" for MAKE; `replaces` are those that
    SWITCH retires. `until` is the time that WAIT waits for.
    """

    action: Action
    domain: str
    kind: str
    bits: int
    selector: str = ""
    replaces: tuple[str, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be made. `bits` is for RSA."""

    domain: str
    selector: str
    kind: str = RSA
    bits: int = MIN_BITS


def steps(keys: Iterable[tuple[StoredKey, SigningKey]], now: datetime) -> list[Step]:
    """Say what comes next for the keys of one domain, oldest first; each kind goes its own way."""
    by_kind: dict[str, list[tuple[StoredKey, SigningKey]]] = {}
    for stored, key in keys:
        by_kind.setdefault(key.kind, []).append((stored, key))
    return [step for kind in sorted(by_kind, reverse=True) for step in _steps(by_kind[kind], now)]


def _steps(keys: list[tuple[StoredKey, SigningKey]], now: datetime) -> list[Step]:
    stored = {state: [each for each, _ in keys if each.state is state] for state in KeyState}
    newest = keys[-1][1]
    step = Step(Action.MAKE, newest.domain, newest.kind, getattr(newest.private, "key_size", 0))
    found = [
        replace(step, action=Action.REMOVE, selector=each.selector)
        for each in stored[KeyState.RETIRED]
        if _ends(each) <= now
    ]
    if stored[KeyState.PUBLISHED]:
        signing = tuple(each.selector for each in stored[KeyState.SIGNING])
        chosen = stored[KeyState.PUBLISHED][-1].selector
        return [*found, replace(step, action=Action.SWITCH, selector=chosen, replaces=signing)]
    found += [
        replace(step, action=Action.WAIT, selector=each.selector, until=_ends(each))
        for each in stored[KeyState.RETIRED]
        if _ends(each) > now
    ]
    return found or [step]


def _ends(stored: StoredKey) -> datetime:
    return stored.entry.until or stored.entry.since


def free_selector(place: Path, kind: str, now: datetime) -> str:
    """Give a selector that says when its key was made and that the domain's folder has never had at present."""
    taken = {path.stem for path in place.glob("*.pem")} | read_entries(place).keys()
    base = f"{_LETTERS[kind]}{now:%Y%m%d}"
    return next(name for n in count(1) if (name := base if n == 1 else f"{base}-{n}") not in taken)


def make(folder: Path, new: NewKey, state: KeyState, now: datetime) -> tuple[StoredKey, SigningKey]:
    """Make a key and put it in the folder; a file that is in the way stays and raises `KeysError`."""
    place = folder / new.domain
    path = place / f"{new.selector}.pem"
    pem, key = _new(new, path)
    stored = StoredKey(path, new.domain, new.selector, Entry(state, now, now))
    with _told(path):
        _create_folder(folder)
        _create_folder(place)
        if path.exists():
            raise KeysError(f"{path}: a key of that name is there already: choose another selector")
        # While there is no entry a key signs: an entry that keeps it from that must be there first.
        entries = {**read_entries(place), new.selector: stored.entry}
        if state is not KeyState.SIGNING:
            _write(place / ROTATION, entries_text(entries).encode())
        _create(path, pem)
        if state is KeyState.SIGNING:
            _write(place / ROTATION, entries_text(entries).encode())
    return stored, key


def switch(place: Path, step: Step, now: datetime, keep: timedelta) -> datetime:
    """Let the step's key sign and retire those that it replaces; give when their records may be deleted.

    `place` is the domain's folder; `keep` is how long mail signed until now may be on its way.
    """
    until = now + keep
    entries = read_entries(place)
    created = entries[step.selector].created if step.selector in entries else now
    for selector in step.replaces:
        made = entries[selector].created if selector in entries else now
        entries[selector] = Entry(KeyState.RETIRED, made, now, until)
    entries[step.selector] = Entry(KeyState.SIGNING, created, now)
    with _told(place / ROTATION):
        _write(place / ROTATION, entries_text(entries).encode())
    return until


def remove(place: Path, step: Step) -> None:
    """Delete a retired key, and then what was known of it."""
    path = place / f"{step.selector}.pem"
    with _told(path):
        path.unlink(missing_ok=True)
        _sync(place)
        left: Mapping[str, Entry] = {
            selector: entry for selector, entry in read_entries(place).items() if selector != step.selector
        }
        _write(place / ROTATION, entries_text(left).encode())


@contextlib.contextmanager
def locked(folder: Path, *, create: bool = True) -> Iterator[None]:
    """Keep other commands from changing the keys meanwhile; raise `KeysError` if one is about it."""
    if not create and not folder.exists():
        yield
        return
    with _told(folder):
        _create_folder(folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise KeysError(f"{folder}: another command is changing the keys: try again when it has ended") from None
        yield
    finally:
        os.close(descriptor)


def _new(new: NewKey, path: Path) -> tuple[bytes, SigningKey]:
    pem = _pem(new)
    try:
        key = load_key(pem, new.domain, new.selector)
    except SigningKeyError as error:
        raise KeysError(f"{path}: {error}") from None
    if (key.domain, key.selector) != (new.domain, new.selector):
        raise KeysError(f"{path}: expected names as DNS has them: {key.domain}/{key.selector}.pem")
    return pem, key


def _pem(new: NewKey) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate() if new.kind == ED25519 else generate_private_key(65_537, new.bits)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system has against a file into a `KeysError`."""
    try:
        yield
    except OSError as error:
        raise KeysError(f"{error.filename or path}: it cannot be written: {error.strerror}") from None


def _create_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        _create_folder(folder.parent)
    folder.mkdir(mode=0o700)
    folder.chmod(0o700)  # whatever the umask is
    _give(folder)


def _create(path: Path, octets: bytes) -> None:
    """Make a file that did not exist, whole and on disk, or none."""
    temporary = _temporary(path, octets)
    try:
        os.link(temporary, path)  # unlike a rename, this never takes the place of what is there
    finally:
        temporary.unlink()
    _sync(path.parent)


def _write(path: Path, octets: bytes) -> None:
    """Put a file in the place of what is there."""
    _temporary(path, octets).rename(path)
    _sync(path.parent)


def _temporary(path: Path, octets: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
            file.flush()
            os.fchmod(descriptor, 0o600)  # whatever the umask is
            os.fsync(descriptor)
        _give(temporary)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _give(path: Path) -> None:
    """Let root's new file belong to whoever owns the folder: the user that the gateway runs as."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
