"""Rows 24 and 55: the disk of the running gateway is full, out of files, or fails; faults are injected from outside.

Whatever happens, the sender gets a temporary answer that names nothing of ours, nothing is bounced or made twice, and
what was acknowledged is delivered.
"""

import contextlib
import errno
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kill.scene import Mail, Moods, Scene, scene
from tests.kill.tracing import at, attached, missing
from tests.lab.client import Answer, Client
from tests.lab.maildir import wait_for
from tests.lab.world import World, loopback_world

traced = pytest.mark.skipif(bool(missing()), reason=missing() or "strace")
_INTERNAL = re.compile(r"/|errno|spool|sqlite|database|disk|fsync", re.IGNORECASE)


@pytest.fixture(scope="module")
def calm() -> Iterator[Scene]:
    """Give a scene for faults after which the gateway goes on."""
    with loopback_world() as world, scene(world) as running:
        assert offered(running, running.mail("two"))[0].code == 250  # now all modules have been loaded
        yield running


def offered(running: Scene, mail: Mail, *, mails: int = 1) -> list[Answer]:
    """Send a mail in one connection, as often as asked; give the answers."""
    with Client(running.world, running.gateway.host, running.senders[0]) as client:
        client.ehlo()
        to = [f"{alias}@forward.test" for alias in mail.aliases]
        mail.tries += mails
        answers = [client.send("a@sender.test", to, mail.octets) for _ in range(mails)]
    mail.code = answers[-1].code
    assert not any(_INTERNAL.search(answer.text) for answer in answers), answers
    return answers


def all_is_well(running: Scene, mail: Mail) -> None:
    """The same mail is taken now and arrives once; so did everything else."""
    assert offered(running, mail)[0].code == 250
    running.settle()
    arrived = running.arrived()
    assert [arrived[mail.token, mailbox] for _, mailbox in mail.mailboxes] == [1] * len(mail.mailboxes)
    assert running.problems() == running.left_over() == []
    assert not running.home.received
    assert running.duplicates() == 0


@traced
@pytest.mark.parametrize(
    ("call", "error", "code", "status"),
    [
        ("openat", "EDQUOT", 452, "4.3.1"),
        ("openat", "EMFILE", 451, "4.3.0"),
        ("rename", "EIO", 451, "4.3.0"),
        ("pwrite64", "ENOSPC", 452, "4.3.1"),
    ],
)
def test_a_call_that_fails_is_temporary(calm: Scene, call: str, error: str, code: int, status: str) -> None:
    mail = calm.mail("two")
    with attached([calm.parent], at(call, f"error={error}", "1+")):
        (answer,) = offered(calm, mail)
    assert (answer.code, answer.text[:5]) == (code, status), answer
    wait_for(lambda: offered(calm, calm.mail("good"))[0].code == 250, what="no mail is taken again")
    all_is_well(calm, mail)


@pytest.mark.parametrize("size", [900_000, 1_900_000])
def test_a_write_that_is_cut_short_and_then_fails_is_temporary(calm: Scene, size: int) -> None:
    """That of a message file, and of the file in which a large message waits for its dot."""
    mail = calm.mail("two", size=size)
    soft, hard = resource.prlimit(calm.parent, resource.RLIMIT_FSIZE)
    resource.prlimit(calm.parent, resource.RLIMIT_FSIZE, (size // 2, hard))
    (answer,) = offered(calm, mail)
    assert (answer.code, answer.text[:5]) == (452, "4.3.1"), answer  # EFBIG is a kind of no room
    resource.prlimit(calm.parent, resource.RLIMIT_FSIZE, (soft, hard))
    all_is_well(calm, mail)


@traced
@pytest.mark.parametrize(("call", "workers"), [("fdatasync", 1), ("fsync", 2)])
def test_after_a_failed_fsync_nothing_is_taken_until_a_restart(call: str, workers: int) -> None:
    """In a worker, that goes for all of them."""
    with loopback_world() as world, scene(world, {"workers": workers}) as running:
        mail, earlier = running.mail("two"), running.mail("good")
        assert offered(running, earlier)[0].code == 250
        running.settle()
        pids = list(running.gateway.workers().values()) if workers > 1 else [running.parent]
        with attached(pids, at(call, "error=EIO")):
            assert [one.code for one in offered(running, mail)] == [451]
        for _ in range(4 * workers):
            assert [(one.code, one.text[:5]) for one in offered(running, mail)] == [(451, "4.3.0")]
        assert any("until the gateway is started again" in str(one["text"]) for one in running.gateway.events("alert"))
        running.gateway.terminate()
        assert running.gateway.wait_end() == 0
        running.gateway.start()
        running.settle()
        arrived = running.arrived()
        if not arrived[mail.token, "two-good@inbox.test"]:  # a commit that failed may have reached the disk
            all_is_well(running, mail)
        assert running.problems() == running.left_over() == []


# A disk that is really full


@contextlib.contextmanager
def small_disk(world: World, options: str) -> Iterator[tuple[Scene, Path]]:
    """Give a scene whose spool is a file system of its own, and the place where the test sees it."""
    with scene(world, {"delivery.retry": ["1s"]}) as running:
        running.gateway.terminate()
        assert running.gateway.wait_end() == 0
        done = world.run("mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", str(running.spool))
        if done.returncode:
            pytest.skip(f"no file system can be mounted: {done.stderr.decode()}")
        running.at = Path(f"/proc/{world.holder}/root")
        running.gateway.start()
        yield running, running.at / str(running.spool)[1:]


def test_a_full_disk(namespace: World) -> None:
    with small_disk(namespace, "size=24m") as (running, place):
        moods = running.inbox.script.recipients
        assert isinstance(moods, Moods)
        moods.grey = 1.0
        waits = running.mail("grey")
        assert offered(running, waits)[0].code == 250
        wait_for(lambda: running.queue()[0]["to"][0]["attempts"], what="no attempt was made")
        fill(place / "filler")
        mail = running.mail("two", size=20_000)
        answers = offered(running, mail, mails=3)
        assert [(one.code, one.text[:5]) for one in answers] == [(452, "4.3.1")] * 3
        moods.grey = 0.0
        running.settle()  # what became of it is recorded: the ballast makes room
        assert running.arrived()[waits.token, "grey@inbox.test"] == 1
        assert [(one.code, one.text[:5]) for one in offered(running, mail)] == [(452, "4.3.1")]
        (place / "filler").unlink()
        wait_for(lambda: offered(running, running.mail("good"))[0].code == 250, what="no mail is taken again")
        all_is_well(running, mail)
        assert running.arrived()[waits.token, "grey@inbox.test"] == 1


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as filler:
        path.chmod(0o600)
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while filler.write(bytes(size)):
                    pass


def test_a_disk_without_inodes(namespace: World) -> None:
    with small_disk(namespace, "size=24m,nr_inodes=1100") as (running, place):
        mail, number = running.mail("two"), 0
        try:
            for number in range(2000):
                (place / "quarantine" / f"f{number}").touch(mode=0o600)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        answers = offered(running, mail, mails=3)
        assert [(one.code, one.text[:5]) for one in answers] == [(452, "4.3.1")] * 3
        for one in range(number):
            (place / "quarantine" / f"f{one}").unlink()
        wait_for(lambda: offered(running, running.mail("good"))[0].code == 250, what="no mail is taken again")
        all_is_well(running, mail)
