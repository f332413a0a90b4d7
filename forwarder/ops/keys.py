"""The folder of DKIM keys: `keys/<domain>/<selector>.pem`, and beside them what each is for: `rotation.json`.

`load_keys` gives the keys to sign with, or raises `KeysError` with every problem: the file, what is wrong, what to do.
A key that `rotation.json` does not name signs, so that a file put there by hand is enough. Key files are private: of
root's, ours or the folder's owner, and readable by nobody else. What a key is never gets into a text.

The order of writing keeps a crash from letting a key sign too early: the entry of a key that must wait is written
before the key, and taken out after it (`ops.rotation`). So an entry without a file is a leftover, unless it signs.

Left out on purpose: making and changing keys (`ops.rotation`), DNS.
"""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from forwarder.model.address import AddressError, canonical_name
from forwarder.ops.secrets import SecretError, read_private
from forwarder.rewrite.signing_key import SigningKey, SigningKeyError, load_key

ROTATION = "rotation.json"
MAX_DOMAINS = 10_000  # a key takes half a millisecond to load
MAX_KEYS = 100  # of one domain

_SUFFIX = ".pem"


class KeyState(Enum):
    """Where a key is in its life."""

    PUBLISHED = "published"  # its record belongs into DNS; it does not sign yet
    SIGNING = "signing"
    RETIRED = "retired"  # it signs no more; its record stays for mail that is on its way


class KeysError(Exception):
    """The keys cannot be used as they are. `problems` has a line for each thing that is wrong, with what to do."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Entry:
    """What `rotation.json` says of a selector, times in UTC. `until`: when a retired key's record may go."""

    state: KeyState
    created: datetime
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key file. Without an entry it signs, and is as old as its file."""

    path: Path
    domain: str
    selector: str
    entry: Entry

    @property
    def state(self) -> KeyState:
        """What the key is for at present."""
        return self.entry.state

    def load(self) -> SigningKey:
        """Read the key; raise `KeysError`."""
        try:
            return load_key(read_private(self.path, *owners_of(self.path.parent)), self.domain, self.selector)
        except SecretError as error:
            raise KeysError(str(error)) from None
        except SigningKeyError as error:
            raise KeysError(f"{self.path}: {error}") from None


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a key folder: the keys by domain, oldest first, what is wrong, and what is merely odd."""

    keys: Mapping[str, tuple[StoredKey, ...]]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys to sign with, by domain: one RSA key, one Ed25519 key, or both, RSA first."""

    by_domain: Mapping[str, tuple[SigningKey, ...]] = field(default_factory=dict)
    fallback: tuple[SigningKey, ...] = ()
    warnings: tuple[str, ...] = ()

    def for_domain(self, domain: str) -> tuple[SigningKey, ...]:
        """Give the keys for mail of a served domain: its own, else the fallback's, else none."""
        return self.by_domain.get(domain, self.fallback)


def load_keys(folder: Path, srs_domain: str = "") -> Keys:
    """Load what signs; raise `KeysError`. The keys of the SRS domain, or of the nearest domain above it that has some,
    sign for served domains without."""
    contents = read_folder(folder)
    problems, warnings = list(contents.problems), list(contents.warnings)
    loaded: dict[str, tuple[SigningKey, ...]] = {}
    for domain, stored in contents.keys.items():
        by_kind: dict[str, SigningKey] = {}
        for each in stored:
            if each.state is KeyState.SIGNING:
                _take(each, by_kind, problems, warnings)
        if by_kind:
            loaded[domain] = tuple(by_kind[kind] for kind in sorted(by_kind, reverse=True))
    if problems:
        raise KeysError(*problems)
    if not loaded:
        warnings.append(f"{folder}: no key signs, so nothing is signed: make keys with `forwarder keys generate`")
    return Keys(loaded, _nearest(loaded, srs_domain), tuple(warnings))


def _take(stored: StoredKey, by_kind: dict[str, SigningKey], problems: list[str], warnings: list[str]) -> None:
    """Load a key; it takes the place of an older one of its kind."""
    try:
        key = stored.load()
    except KeysError as error:
        problems += error.problems
        return
    if older := by_kind.get(key.kind):
        warnings.append(
            f"{stored.path.parent}: {older.selector} and {key.selector} are both {key.kind} keys that sign: the newer, "
            f"{key.selector}, is used; remove {older.selector}{_SUFFIX} when no mail signed with it is on its way"
        )
    by_kind[key.kind] = key


def _nearest(loaded: Mapping[str, tuple[SigningKey, ...]], name: str) -> tuple[SigningKey, ...]:
    while "." in name:
        if name in loaded:
            return loaded[name]
        name = name.partition(".")[2]
    return ()


def read_folder(folder: Path) -> Contents:
    """Look what is there, without loading keys. A folder that does not exist has none."""
    keys: dict[str, tuple[StoredKey, ...]] = {}
    problems: list[str] = []
    warnings: list[str] = []
    try:
        if not folder.exists():
            return Contents({})
        problems += _open_to_others(folder)
        for place in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
            if flaw := _misplaced(place):
                warnings.append(flaw)
            elif len(keys) == MAX_DOMAINS:
                problems.append(f"{folder}: expected at most {MAX_DOMAINS} domains")
                break
            else:
                keys[place.name] = tuple(_domain(place, problems, warnings))
    except OSError as error:
        problems.append(f"{error.filename or folder}: expected a folder that can be read: {error.strerror}")
    return Contents(keys, tuple(problems), tuple(warnings))


def _domain(place: Path, problems: list[str], warnings: list[str]) -> list[StoredKey]:
    """Give the keys of one domain, oldest first."""
    problems += _open_to_others(place)
    try:
        entries = read_entries(place)
    except KeysError as error:
        problems += error.problems
        return []
    files = sorted(each for each in place.iterdir() if not each.name.startswith(".") and each.name != ROTATION)
    found = [StoredKey(path, place.name, path.stem, _entry(path, entries)) for path in files if path.suffix == _SUFFIX]
    warnings += [f"{path}: not used: expected a key, <selector>{_SUFFIX}" for path in files if path.suffix != _SUFFIX]
    if len(found) > MAX_KEYS:
        problems.append(f"{place}: expected at most {MAX_KEYS} keys")
        return []
    there = {each.selector for each in found}
    for selector in sorted(entries.keys() - there):
        if entries[selector].state is KeyState.SIGNING:
            problems.append(
                f"{place / (selector + _SUFFIX)}: expected the key that {ROTATION} says signs: restore it, or take "
                f"{selector} out of {place / ROTATION}"
            )
    return sorted(found, key=lambda each: (each.entry.created, each.selector))


def _misplaced(place: Path) -> str:
    """Say why something in the key folder belongs to no domain, "" if it does."""
    if not place.is_dir():
        return f"{place}: not used: expected a folder for each domain, with <selector>{_SUFFIX} in it"
    try:
        canonical = canonical_name(place.name)
    except AddressError:
        return f"{place}: not used: its name is no domain"
    return "" if canonical == place.name else f"{place}: not used: rename it to {canonical}"


def _entry(path: Path, entries: Mapping[str, Entry]) -> Entry:
    if path.stem in entries:
        return entries[path.stem]
    created = datetime.fromtimestamp(int(path.lstat().st_mtime), UTC)
    return Entry(KeyState.SIGNING, created, created)


def _open_to_others(folder: Path) -> Iterator[str]:
    """Whoever can write to the folder could put keys there."""
    if mode := stat.S_IMODE(folder.stat().st_mode) & 0o022:
        yield f"{folder}: expected a folder that nobody else can write to (its mode has {mode:03o}): chmod 700"


def owners_of(folder: Path) -> tuple[int, ...]:
    """Give who else may own keys: for root the owner of the folder, whose gateway it is; for others nobody."""
    return (folder.stat().st_uid,) if os.geteuid() == 0 else ()


def read_entries(place: Path) -> dict[str, Entry]:
    """Read the `rotation.json` of a domain's folder, {} without one; raise `KeysError`."""
    path = place / ROTATION
    if not os.path.lexists(path):
        return {}
    try:
        tree = json.loads(read_private(path, *owners_of(place)))
        return {selector: _read_entry(fields) for selector, fields in tree["keys"].items()}
    except SecretError as error:
        raise KeysError(str(error)) from None
    except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError, RecursionError):
        raise KeysError(
            f"{path}: it is damaged: restore it; without it every key of the folder signs, so do not just remove it"
        ) from None


def _read_entry(fields: Mapping[str, str | None]) -> Entry:
    until = fields.get("until")
    return Entry(
        KeyState(fields["state"]),
        _time(fields["created"]),
        _time(fields["since"]),
        None if until is None else _time(until),
    )


def _time(text: str | None) -> datetime:
    time = datetime.fromisoformat(text or "")
    if time.tzinfo is None:
        raise ValueError("a time without its zone")
    return time.astimezone(UTC)


def entries_text(entries: Mapping[str, Entry]) -> str:
    """Write the entries as `read_entries` reads them."""
    tree = {
        selector: {"state": each.state.value, "created": stamp(each.created), "since": stamp(each.since)}
        | ({"until": stamp(each.until)} if each.until else {})
        for selector, each in entries.items()
    }
    return json.dumps({"keys": tree}, indent=2) + "\n"


def stamp(time: datetime) -> str:
    """Write a time as RFC 3339 does, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
