"""Moves a damaged letter aside: its file to `quarantine/<id>`, its rows as far as they can be read to `<id>.json`.

The order survives a crash at any point: what is written beside comes first, durable, then the file's new name, then
the end of the rows. Begun again it ends the same way; nothing in the folder is ever written over.
"""

import base64
import hashlib
import json
import sqlite3
from contextlib import suppress
from pathlib import Path

from forwarder.ports import SpoolError
from forwarder.spool.disk import Disk
from forwarder.spool.faults import of_files
from forwarder.spool.files import is_id, sync_folder, synced, write_all

_TABLES = (("letters", "id"), ("parts", "letter"), ("heads", "letter"))

Record = dict[str, list[dict[str, object]]]


def read_record(connection: sqlite3.Connection, id: str) -> Record:
    """Give all rows of a letter by table and column; no table has a key where there is nothing."""
    record: Record = {}
    for table, key in _TABLES:
        condition, value = _condition(key, id)
        cursor = connection.execute(f"SELECT * FROM {table} WHERE {condition}", (value,))  # noqa: S608 - texts of ours
        names = [column[0] for column in cursor.description]
        if rows := [dict(zip(names, map(_plain, row), strict=True)) for row in cursor]:
            record[table] = rows
    return record


def remove_rows(connection: sqlite3.Connection, id: str) -> None:
    """Remove all rows of a letter."""
    for table, key in _TABLES:
        condition, value = _condition(key, id)
        connection.execute(f"DELETE FROM {table} WHERE {condition}", (value,))  # noqa: S608


def _condition(key: str, id: str) -> tuple[str, object]:
    """Find rows by their key; one that is no id any more may be of any type and no text, so octets are compared."""
    if is_id(id):
        return f"{key} = ?", id
    return f"CAST({key} AS BLOB) = ?", id.encode("utf-8", "surrogateescape")


def put_aside(folder: Path, disk: Disk, id: str, record: Record, reason: str) -> None:
    """Write the record and move the file, both durable; raise `SpoolError`."""
    octets = json.dumps({"reason": reason, **record}, indent=1).encode()
    name = id if is_id(id) else "row-" + hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    try:
        _write(_free(folder / "quarantine" / f"{name}.json", disk), disk, octets)
        if is_id(id):
            with suppress(FileNotFoundError):  # it is missing, or an earlier start has moved it
                disk.rename(folder / "messages" / id, _free(folder / "quarantine" / id, disk))
        sync_folder(disk, folder / "quarantine")
        sync_folder(disk, folder / "messages")
    except OSError as error:
        raise of_files(error, f"the damaged letter {id} cannot be moved to quarantine") from error


def _write(path: Path, disk: Disk, octets: bytes) -> None:
    descriptor = disk.create(path)
    try:
        write_all(disk, descriptor, octets)
        synced(disk, descriptor, "a record in quarantine")
    finally:
        disk.close(descriptor)


def _free(path: Path, disk: Disk) -> Path:
    for number in range(1000):
        candidate = path.with_name(f"{path.name}.{number}") if number else path
        try:
            disk.status(candidate)
        except FileNotFoundError:
            return candidate
    raise SpoolError(f"the quarantine is full of {path.name}")


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value
