"""deploy/quickstart end to end: from a copy of the checkout in a folder with spaces, from another working directory."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from deploy.demo import quickstart
from deploy.demo.inbox import Letter, Maildir
from deploy.demo.letter import compose, send, verifies
from deploy.demo.say import Say
from deploy.demo.setting import Ports

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0  # seconds


class Place:
    """A copy of the checkout, and a folder for temporary files by which all its processes can be told."""

    def __init__(self, folder: Path, temporary: Path, stack: contextlib.ExitStack) -> None:
        self.root = folder / "a copy"
        self.temporary = temporary
        self._stack = stack
        for name in ("deploy", "forwarder"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", self.root)
        venv = str(Path(sys.executable).parents[1])
        self.environ = {**os.environ, "FORWARDER_VENV": venv, "TMPDIR": str(self.temporary)}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [str(self.root / "deploy/quickstart"), *arguments],
            env=self.environ,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process

    def processes(self) -> list[int]:
        """Give the processes that were started from here, ourselves left out."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    # a short path, as users have it: the control socket lies below it
    with tempfile.TemporaryDirectory(prefix="fq-", dir="/tmp") as temporary, contextlib.ExitStack() as stack:
        place = Place(tmp_path, Path(temporary), stack)
        yield place
    for pid in place.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def read_until(process: "subprocess.Popen[str]", text: str) -> str:
    """Read what it prints until a line with that text has come; give everything."""
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} did not come:\n{said}")


def end(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    return said


def test_once_shows_the_letter_and_its_way(place: Place) -> None:
    process = place.start("--once")
    said = end(process)
    assert process.returncode == 0, said
    for expected in (
        "S: 220 mx.yours.example",
        "C: RCPT TO:<you@yours.example>",
        "S: 250 2.0.0 Forwarded, id ",
        "envelope sender: SRS0=",
        "  + Received: from sender.example",
        "  + DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=yours.example;",
        "  + ARC-Seal: i=1;",
        "  + Delivered-To: you@yours.example",
        "    Subject: The first letter",
        "octets are as they were sent",
        "DKIM signature verifies",
    ):
        assert expected in said
    found = re.search(r"Forwarded, id (\w+)", said)
    assert found
    log = said.partition("4  What the log says")[2]
    for event in ("routed", "delivered", "accepted"):
        assert re.search(rf"\b{event}\b.*{found[1]}", log), log
    assert "\x1b" not in said
    assert not place.processes()
    assert not list(place.temporary.iterdir())


def test_it_serves_until_interrupted_and_does_what_it_says(place: Place) -> None:
    process = place.start()
    said = read_until(process, "quickstart --domain")
    found = re.search(r"gateway\s+127\.0\.0\.1:(\d+)", said)
    assert found
    gateway = ("127.0.0.1", int(found[1]))
    letter = b"Subject: another\r\n\r\n.\r\n"
    assert asyncio.run(send(gateway, "me@sender.example", "hello@yours.example", letter)).accepted
    refused = asyncio.run(send(gateway, "me@sender.example", "full@yours.example", letter))
    assert any("This mailbox is full" in line and line.startswith("S: 5") for line in refused.lines)
    assert "550 5.1.1" in asyncio.run(send(gateway, "me@sender.example", "later@yours.example", letter)).lines[-3]
    assert "you+news-weekly@inbox.example" in run_printed(said, "rules explain", place)
    edit(said)
    assert "added" in run_printed(said, "rules reload", place)
    assert asyncio.run(send(gateway, "me@sender.example", "later@yours.example", letter)).accepted

    second = place.start("--once")  # the usual ports are taken now
    assert "octets are as they were sent" in end(second)
    assert second.returncode == 0

    process.send_signal(signal.SIGINT)
    rest = end(process)
    assert process.returncode == 0, rest
    assert "accepted" in rest  # the log, live
    assert not place.processes()
    assert not list(place.temporary.iterdir())


def run_printed(said: str, what: str, place: Place) -> str:
    """Run the command that was printed, as a user would who copies the line."""
    (line,) = [line.strip() for line in said.splitlines() if what in line]
    done = subprocess.run(
        line,
        shell=True,
        cwd="/",
        env={**place.environ, "PYTHONPATH": str(place.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def edit(said: str) -> None:
    found = re.search(r"# (\S+\.rules)", said)
    assert found
    with Path(found[1]).open("a") as rules:
        rules.write("later -> you@inbox.example\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_it_as_well(place: Place, number: signal.Signals) -> None:
    process = place.start()
    read_until(process, "quickstart --domain")
    process.send_signal(number)
    end(process)
    assert process.returncode == 0
    assert not place.processes()
    assert not list(place.temporary.iterdir())


def test_killed_outright_it_leaves_no_process_and_can_be_run_again(place: Place) -> None:
    process = place.start()
    read_until(process, "quickstart --domain")
    process.kill()
    end(process)
    patience = time.monotonic() + PATIENCE
    while place.processes() and time.monotonic() < patience:
        time.sleep(0.05)
    assert not place.processes()
    again = place.start("--once")
    assert "octets are as they were sent" in end(again)
    assert again.returncode == 0


def test_a_gateway_that_does_not_come_up_is_told_with_its_reason(place: Place) -> None:
    (place.root / "forwarder/cli/serve.py").write_text("raise SystemExit('the reason why')\n")
    process = place.start("--once")
    said = end(process)
    assert process.returncode == 1
    assert "the reason why" in said
    assert "Traceback" not in said
    assert not place.processes()
    assert not list(place.temporary.iterdir())


def scene(
    folder: Path, alter: bytes = b"", by: bytes = b"", head: bytes = b"Received: x\r\n\tid ABC\r\n"
) -> quickstart.Scene:
    """Make a scene in which the letter arrived, possibly altered."""
    letter = compose("sender.example", "you@yours.example", datetime.now(UTC))
    maildir = Maildir(folder / "inbox")
    octets = letter.octets.replace(alter, by) if alter else letter.octets
    maildir.take(Letter("x", "a@b", ("you@inbox.example",), head + octets))
    return quickstart.Scene(folder, folder, Ports(1, 2, 3), maildir, letter)


def examine(scene: quickstart.Scene) -> str:
    (message,) = scene.maildir.messages()
    return quickstart._examine(message.read_bytes(), scene, Say(StringIO()))


def test_a_letter_as_it_was_sent_is_fine(tmp_path: Path) -> None:
    assert examine(scene(tmp_path)) == ""


@pytest.mark.parametrize(
    ("altered", "said"),
    [
        ({"alter": b"Ada\r\n", "by": b"Eve\r\n"}, "does not end with"),
        ({"alter": b"\r\n through", "by": b" through"}, "does not end with"),
        ({"head": b""}, "not made of header lines"),
        ({"head": b"no header\r\n"}, "not made of header lines"),
        ({"head": b"From: <eve@sender.example>\r\n"}, "does not verify"),
    ],
)
def test_an_altered_letter_is_noticed(tmp_path: Path, altered: dict[str, bytes], said: str) -> None:
    assert said in examine(scene(tmp_path, **altered))


def test_the_signature_tells_altered_letters() -> None:
    letter = compose("sender.example", "you@yours.example", datetime.now(UTC))
    assert verifies(b"Received: x\r\n" + letter.octets, letter)
    assert not verifies(letter.octets.replace(b"Good", b"Bad"), letter)
    assert not verifies(b"", letter)
    assert not verifies(b"Subject: unsigned\r\n\r\n", letter)
    assert verifies(b"DKIM-Signature: v=1; a=rsa-sha256; d=yours.example; s=x; b=\r\n" + letter.octets, letter)
