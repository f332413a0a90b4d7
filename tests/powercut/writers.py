"""Small programs that keep values durably, or nearly so: each kind but the sound ones has one fault.

`python writers.py KIND FOLDER` keeps a few values and promises each with a line `ACK <number>`. It imports nothing of
the project, so that it starts quickly under strace.
"""

import hashlib
import os
import sqlite3
import sys
import threading

COUNT = 4
FAULTY_FILES = {"no-file-sync", "no-folder-sync", "early-promise", "early-rename", "no-parent-sync"}
TABLES = {"full", "extra"}  # sound
FAULTY_TABLES = {"normal", "off", "full-delete"}


def value(number: int) -> bytes:
    """Give the value that belongs to a number: some pages, beginning with a digest of the rest."""
    rest = bytes((number * 31 + at) % 251 for at in range(2000 * number + 700))
    return hashlib.sha256(rest).digest() + rest


def promise(number: int) -> None:
    os.write(1, b"ACK %d\n" % number)


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def keep_file(kind: str, folder: str, number: int) -> None:
    temporary, final = f"{folder}/.new-{number}", f"{folder}/{number}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    octets = value(number)
    os.write(descriptor, octets[:1000])
    os.write(descriptor, octets[1000:])
    if kind == "early-promise":
        promise(number)
    if kind == "early-rename":
        os.rename(temporary, final)
    if kind != "no-file-sync":
        os.fsync(descriptor)
    os.close(descriptor)
    if kind != "early-rename":
        os.rename(temporary, final)
    if kind != "no-folder-sync":
        sync_folder(folder)
    if kind != "early-promise":
        promise(number)


def keep_in_new_folder(folder: str, number: int) -> None:
    """Make a folder for each value, and sync it, but not the folder that has its name."""
    os.mkdir(f"{folder}/{number}.d", 0o700)
    keep_file("file", f"{folder}/{number}.d", number)


def keep_unnamed(folder: str, number: int) -> None:
    """Write a file that has no name yet, and give it one."""
    descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600)
    os.writev(descriptor, [value(number)[:500], value(number)[500:]])
    os.fdatasync(descriptor)
    # Only with a descriptor given does Python call linkat, which can follow this link.
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.link(f"/proc/self/fd/{descriptor}", f"{folder}/{number}", src_dir_fd=here, follow_symlinks=True)
    os.close(here)
    os.close(descriptor)
    sync_folder(folder)
    promise(number)


def keep_overtaken(folder: str) -> None:
    """Believe in a sync that came before the write: the fault of a careless group commit."""
    descriptor = os.open(f"{folder}/1", os.O_WRONLY | os.O_CREAT, 0o600)
    sync_folder(folder)
    os.fsync(descriptor)
    os.write(descriptor, value(1))
    promise(1)


def keep_row(kind: str, connection: sqlite3.Connection, number: int) -> None:
    with connection:
        connection.execute("INSERT INTO kept VALUES (?, ?)", (number, value(number)))
    promise(number)


def keep_rows(kind: str, folder: str) -> None:
    level, _, journal = kind.partition("-")
    if kind == "extra":
        journal = "delete"
    connection = sqlite3.connect(f"{folder}/db")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute(f"PRAGMA journal_mode={journal or 'wal'}")
    connection.execute("CREATE TABLE IF NOT EXISTS kept (number INTEGER PRIMARY KEY, octets BLOB)")
    connection.commit()
    connection.execute(f"PRAGMA synchronous={level}")
    connection.execute("PRAGMA wal_autocheckpoint=4")
    for number in range(1, COUNT + 1):
        keep_row(kind, connection, number)
    connection.close()


def main(kind: str, folder: str) -> None:
    numbers = range(1, COUNT + 1)
    if kind in TABLES | FAULTY_TABLES:
        keep_rows(kind, folder)
    elif kind == "threads":
        threads = [threading.Thread(target=keep_file, args=("file", folder, number)) for number in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    elif kind == "overtaken":
        keep_overtaken(folder)
    else:
        for number in numbers:
            if kind == "unnamed":
                keep_unnamed(folder, number)
            elif kind == "no-parent-sync":
                keep_in_new_folder(folder, number)
            else:
                keep_file(kind, folder, number)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
