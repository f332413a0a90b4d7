"""Free space and files are watched, and the ballast is really there."""

import errno
from pathlib import Path

from forwarder.model.faults import NO_ROOM
from forwarder.spool.disk import Space
from forwarder.spool.room import SpoolSettings
from tests.fakes import RecordingLog
from tests.spool.material import FailingDisk, opened

MB = 1_000_000


async def test_mail_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    disk, log = FailingDisk(), RecordingLog()
    disk.free = Space(1000 * MB, 100_000)
    settings = SpoolSettings(ballast=MB)
    spool = await opened(tmp_path, log, disk=disk, settings=settings)
    cases = [
        (Space(101 * MB, 100_000), False),
        (Space(101 * MB - 1, 100_000), True),
        (Space(5 * MB, 100_000), True),
        (Space(1000 * MB, 100_000), False),
        (Space(1000 * MB, 999), True),
        (Space(1000 * MB, 1000), False),
        (Space(1000 * MB, None), False),
    ]
    for space, refused in cases:
        disk.free = space
        await spool.watch()
        assert spool.refusal() == (NO_ROOM if refused else None), space
    assert len(log.named("alert")) == 2  # once for each time that it became short
    await spool.close()


async def test_the_alert_says_what_would_be_enough(tmp_path: Path) -> None:
    """What must be free is more than `spool.minimum_free`: the number alone would look like enough."""
    disk, log = FailingDisk(), RecordingLog()
    disk.free = Space(105 * MB, None)
    spool = await opened(tmp_path, log, disk=disk, settings=SpoolSettings(minimum_free=100 * MB, ballast=8 << 20))
    (alert,) = log.named("alert")
    assert "105 MB are free, 109 MB must be" in str(alert)
    await spool.close()


async def test_it_is_known_at_once_when_opened(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.free = Space(5 * MB, 100_000)
    spool = await opened(tmp_path, disk=disk, settings=SpoolSettings())
    assert spool.refusal() == NO_ROOM
    await spool.close()


async def test_unknown_space_is_no_space(tmp_path: Path) -> None:
    disk = FailingDisk()
    spool = await opened(tmp_path, disk=disk)
    disk.fail(0, errno.EIO)
    await spool.watch()
    assert spool.refusal() == NO_ROOM
    await spool.watch()
    assert spool.refusal() is None
    await spool.close()


async def test_the_ballast_is_allocated(tmp_path: Path) -> None:
    spool = await opened(tmp_path, settings=SpoolSettings(minimum_free=0))
    status = (tmp_path / "spool" / "ballast").stat()
    assert status.st_blocks * 512 >= status.st_size == 8 << 20
    await spool.close()
    with (tmp_path / "spool" / "ballast").open("r+b") as file:
        file.truncate(0)
        file.truncate(8 << 20)  # as long as before, and nothing in it
    spool = await opened(tmp_path, settings=SpoolSettings(minimum_free=0))
    assert (tmp_path / "spool" / "ballast").stat().st_blocks * 512 >= 8 << 20
    await spool.close()


async def test_a_full_disk_does_not_keep_the_spool_from_opening(tmp_path: Path) -> None:
    """What waits must be delivered, which makes room."""
    await (await opened(tmp_path)).close()
    (tmp_path / "spool" / "ballast").unlink()
    disk = FailingDisk()
    disk.free = Space(0, 0)
    spool = await opened(tmp_path, disk=disk, settings=SpoolSettings(ballast=1 << 60))
    assert spool.refusal() == NO_ROOM
    assert not (tmp_path / "spool" / "ballast").exists()
    await spool.close()


async def test_the_ballast_comes_back_when_there_is_room_twice_over(tmp_path: Path) -> None:
    disk = FailingDisk()
    settings = SpoolSettings(minimum_free=10 * MB, ballast=MB)
    spool = await opened(tmp_path, disk=disk, settings=settings)
    spool._room.release()
    for octets, made in ((12 * MB - 1, False), (12 * MB, True)):
        disk.free = Space(octets, None)
        await spool.watch()
        assert (tmp_path / "spool" / "ballast").exists() == made
        assert (spool.refusal() is None) == made
    await spool.close()
