"""Row 59: what is damaged is moved to quarantine with an alert; never dropped, and never in the way of others."""

import json
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from forwarder.model.letter import Change, Progress, Query, State
from forwarder.ports import Damaged
from forwarder.spool.store import EmbeddedSpool
from tests.fakes import RecordingLog
from tests.spool.material import DELIVERED, letter, names, number, opened, part

BODY = b"Subject: x\r\n\r\n" + b"0123456789" * 100


def flip(octets: bytes, at: int) -> bytes:
    return octets[:at] + bytes([octets[at] ^ 1]) + octets[at + 1 :]


SPOILT = {
    "first": flip(BODY, 0),
    "last": flip(BODY, -1 + len(BODY)),
    "cut": BODY[:-1],
    "long": BODY + b"x",
    "empty": b"",
}


async def assert_in_quarantine(folder: Path, spool: EmbeddedSpool, log: RecordingLog, octets: bytes | None) -> None:
    """Letter 1 is in quarantine, told once; letter 2 is as it was, now and after opening again."""
    assert names(folder, "quarantine") == {f"{number(1)}.json"} | ({number(1)} if octets is not None else set())
    if octets is not None:
        assert (folder / "spool" / "quarantine" / number(1)).read_bytes() == octets
    assert [alert["id"] for alert in log.named("alert")] == [number(1)]
    for _ in range(2):
        assert await spool.fetch(number(1)) is None
        assert await spool.fetch(number(2)) is not None
        assert [one.part for one in await spool.waiting()] == [part(2)]
        assert names(folder, "messages") == {number(2)}
        await spool.close()
        spool = await opened(folder, log)
    await spool.close()
    assert len(log.named("alert")) == 1


@pytest.mark.parametrize("name", SPOILT)
async def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1, BODY), letter(2, BODY)])
    (tmp_path / "spool" / "messages" / number(1)).write_bytes(SPOILT[name])
    with pytest.raises(Damaged, match=number(1)):
        await spool.fetch(number(1))
    record = json.loads((tmp_path / "spool" / "quarantine" / f"{number(1)}.json").read_text())
    assert record["letters"][0]["sender"] == "shop@example.org"
    assert record["parts"][0]["destination"] == "me@gmail.example"
    assert record["reason"].startswith("the message file ")
    await assert_in_quarantine(tmp_path, spool, log, SPOILT[name])


async def test_a_file_that_became_a_link(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1)])
    path = tmp_path / "spool" / "messages" / number(1)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    with pytest.raises(Damaged, match="symbolic link"):
        await spool.fetch(number(1))
    await spool.close()


@pytest.mark.parametrize("bits", [0o620, 0o602, 0o666])
async def test_a_file_that_others_could_write(tmp_path: Path, bits: int) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1, BODY), letter(2, BODY)])
    (tmp_path / "spool" / "messages" / number(1)).chmod(bits)
    with pytest.raises(Damaged, match=f"written by others .mode {bits:03o}"):
        await spool.fetch(number(1))
    await assert_in_quarantine(tmp_path, spool, log, BODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_file_of_another_user(tmp_path: Path) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1, BODY), letter(2, BODY)])
    os.chown(tmp_path / "spool" / "messages" / number(1), 12345, 12345)
    with pytest.raises(Damaged, match="belongs to user 12345"):
        await spool.fetch(number(1))
    await assert_in_quarantine(tmp_path, spool, log, BODY)


@pytest.mark.parametrize("running", [True, False], ids=["running", "at the start"])
async def test_a_missing_file(tmp_path: Path, running: bool) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1), letter(2)])
    if not running:
        await spool.close()
    (tmp_path / "spool" / "messages" / number(1)).unlink()
    if running:
        with pytest.raises(Damaged, match="missing"):
            await spool.fetch(number(1))
    else:
        spool = await opened(tmp_path, log)
    await assert_in_quarantine(tmp_path, spool, log, None)


async def test_octets_that_are_no_text(tmp_path: Path) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1), letter(2)])
    spool._database._connection.execute("UPDATE parts SET reply = CAST(x'c3' AS TEXT) WHERE letter = ?", (number(1),))
    assert [one.part for one in await spool.waiting()] == [part(2)]
    await assert_in_quarantine(tmp_path, spool, log, b"".join(letter(1).message.content.chunks()))


LETTER_COLUMNS = (
    "kind='post'",
    "sender='a@b'",
    "sender=NULL",
    "original_sender=NULL",
    "options='{}'",
    "received=5",
    "received='x'",
    "authenticated=1",
    "bounceable=1",
    "author='x'",
    "message_id='x'",
    "size=1",
    "digest=x'00'",
    "eight_bit=1",
    "parts=2",
    "parts=0",
    "checksum=0",
)
PART_COLUMNS = (
    "recipient='a@b'",
    "destination='a@c'",
    "destination=NULL",
    "via='[]'",
    "options='{}'",
    "options=5",
    "head=9",
    "checksum=1",
    "state='held'",
    "state='delivered'",
    "state='queueD'",
    "state=NULL",
    "due=1",
    "due='x'",
    "attempts=1",
    "waited=1.5",
    "reply='x'",
    "relay='x'",
    "untold=1",
    "noticed=1",
    "progress_checksum=0",
    "number=1",
    "number='x'",
)
ROWS = [
    *(f"UPDATE letters SET {column} WHERE id = ?" for column in LETTER_COLUMNS),
    *(f"UPDATE parts SET {column} WHERE letter = ?" for column in PART_COLUMNS),
    "UPDATE parts SET reply = CAST(x'ff00' AS TEXT) WHERE letter = ?",
    "UPDATE letters SET author = CAST(x'ff00' AS TEXT) WHERE id = ?",
    "UPDATE heads SET octets = x'00' WHERE letter = ?",
    "DELETE FROM heads WHERE letter = ?",
    "DELETE FROM parts WHERE letter = ?",
    "DELETE FROM letters WHERE id = ?",
]


@pytest.mark.parametrize("statement", ROWS)
@pytest.mark.parametrize("look", ["fetch", "find"])
async def test_a_damaged_row(tmp_path: Path, statement: str, look: str) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1, BODY), letter(2, BODY)])
    await spool.close()
    edit(tmp_path, statement)
    spool = await opened(tmp_path, log)
    await spool.waiting()
    with suppress(Damaged):
        assert await spool.fetch(number(1)) is None if look == "fetch" else await spool.find(Query())
    await assert_in_quarantine(tmp_path, spool, log, BODY)


def edit(folder: Path, statement: str) -> None:
    connection = sqlite3.connect(folder / "spool" / "queue.db")
    connection.execute(statement, (number(1),))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("key", ["'../../x'", "5", "x'ff'", "CAST(x'ff' AS TEXT)"])
@pytest.mark.parametrize("table", ["letters SET id", "parts SET letter", "heads SET letter"])
async def test_a_damaged_key(tmp_path: Path, table: str, key: str) -> None:
    """The rows do not belong together any more: neither they nor the message are dropped."""
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1, BODY), letter(2, BODY)])
    await spool.close()
    edit(tmp_path, f"UPDATE {table} = {key} WHERE {table.rsplit(maxsplit=1)[-1]} = ?")
    spool = await opened(tmp_path, log)
    await spool.waiting()
    await spool.find(Query())
    found = names(tmp_path, "quarantine")
    assert number(1) in found
    assert len(found) == 3
    assert all(name.startswith((number(1), "row-")) for name in found)
    assert names(tmp_path, "messages") == {number(2)}
    assert len(log.named("alert")) == 2
    await spool.close()
    spool = await opened(tmp_path, log)
    assert len(log.named("alert")) == 2
    await spool.close()


async def test_a_letter_with_a_damaged_part_is_never_done_with(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    await spool.store([letter(1, parts=2)])
    await spool.close()
    edit(tmp_path, "UPDATE parts SET state = 'bounced' WHERE letter = ? AND number = 1")
    spool = await opened(tmp_path)
    await spool.store([], [Change(part(1, 0), DELIVERED)])
    assert names(tmp_path, "messages") == {number(1)}
    with pytest.raises(Damaged):
        await spool.fetch(number(1))
    assert names(tmp_path, "quarantine") == {number(1), f"{number(1)}.json"}
    await spool.close()


async def test_nothing_in_quarantine_is_written_over(tmp_path: Path) -> None:
    spool = await opened(tmp_path)
    for turn in (b"one", b"two"):
        await spool.store([letter(1, turn)])
        (tmp_path / "spool" / "messages" / number(1)).write_bytes(turn + b"!")
        with pytest.raises(Damaged):
            await spool.fetch(number(1))
    folder = tmp_path / "spool" / "quarantine"
    assert [(folder / name).read_bytes() for name in (number(1), f"{number(1)}.1")] == [b"one!", b"two!"]
    assert len(names(tmp_path, "quarantine")) == 4
    await spool.close()


async def test_a_letter_that_ended_meanwhile_is_not_damaged(tmp_path: Path) -> None:
    log = RecordingLog()
    spool = await opened(tmp_path, log)
    await spool.store([letter(1)])
    content = (await spool.find(Query()))[0].message.content
    assert content.head(3) == b"Sub"
    await spool.store([], [Change(part(1), Progress(State.DELETED))])
    assert await spool.fetch(number(1)) is None
    assert b"".join(content.chunks()) == b"Subject: x\r\n\r\nbody\r\n"  # open already: read to its end
    assert log.events == []
    await spool.close()
