"""`forwarder queue`: against a control socket with a desk behind it, and against the spool while no gateway runs."""

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from forwarder.cli import main, queue, queue_access, queue_offline
from forwarder.cli.queue_output import as_json, header_lines
from forwarder.config import Config
from forwarder.delivery.queue_desk import QueueDesk
from forwarder.model.letter import Letter, Progress, State
from forwarder.ops.clock import SystemClock
from forwarder.ops.control import ControlServer
from forwarder.spool.store import EmbeddedSpool
from tests.delivery.queue_stage import BODY, DUE, HEAD, HELD, QUEUED, Office, letter
from tests.fakes import RecordingLog

A, B, C = "01AAAAAAAAAAAAAA", "01BBBBBBBBBBBBBB", "01BBBBBBCCCCCCCC"
ACTS = ("retry", "hold", "release", "bounce", "delete")


def held(id: str) -> Letter:
    return letter(id, ("me@ours.example", "me@inbox.example", HELD), hours=1)


class Site:
    """An installation in a folder, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "forwarder.toml"
        self.spool = folder / "state" / "spool"
        self.path.write_text(
            f"""
            hostname = "mx1.example.org"
            postmaster = "me@gmail.com"
            rules = "{folder}/rules"
            state_dir = "{folder}/state"
            run_dir = "{folder}/run"
            """
        )
        (folder / "run").mkdir()
        (folder / "state").mkdir()
        (folder / "rules").mkdir()
        (folder / "rules" / "ours.rules").write_text("[ours.example]\n* -> me@inbox.example\n")

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "control.sock"

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        result = CliRunner().invoke(main, ["queue", *arguments, "--config", str(self.path)], input=typed)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)


class Gateway:
    """Answers `queue` with a desk over letters in memory, from a thread with a loop of its own."""

    def __init__(self, path: Path, *letters: Letter) -> None:
        self.asked: list[Mapping[str, object]] = []
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(path, {"queue": self._answer})
        self._loop.run_until_complete(self._start(*letters))
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _start(self, *letters: Letter) -> None:
        self.office = Office(*letters)
        await self._server.start()

    async def _answer(self, request: Mapping[str, object]) -> Mapping[str, object]:
        self.asked.append(request)
        return await self.office.desk.handle(request)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def letters(self) -> dict[str, Letter]:
        return self.office.spool.letters

    def verbs(self) -> list[object]:
        return [request["verb"] for request in self.asked]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def gateway(site: Site) -> Iterator[Gateway]:
    gateway = Gateway(site.socket, letter(A), held(B))
    yield gateway
    gateway.close()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the command believe that somebody can be asked."""
    monkeypatch.setattr(queue, "_somebody_is_there", lambda: True)


# What is printed


def test_the_list_is_one_line_for_each_recipient_oldest_first(site: Site, gateway: Gateway) -> None:
    result = site.run("list")
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["ID", "RECEIVED", "NEXT", "ATTEMPT", "SIZE", "FROM", "TO", "REASON"],
        [A, "2026-11-22T10:00:00Z", *_next(result), "48", "a@sender.example", *_to(), "451", "4.7.1", "try", "later"],
        [B, "2026-11-22T11:00:00Z", "held", "48", "a@sender.example", *_to(), "452", "4.2.2", "mailbox", "full"],
        ["2", "messages,", "2", "recipients:", "1", "queued,", "1", "held"],
    ]
    lines = result.stdout.splitlines()
    assert len({line.index("me@ours.example") for line in lines[1:3]}) == 1


def _to() -> list[str]:
    return ["me@ours.example", "->", "me@inbox.example"]


def _next(result: Result) -> list[str]:
    """Give what stands for the next attempt: that depends on the time of the test."""
    words = result.stdout.splitlines()[1].split()
    return words[2 : words.index("48")]


def test_the_list_as_json(site: Site, gateway: Gateway) -> None:
    tree = site.json("list")
    assert list(tree) == ["messages"]
    first, second = tree["messages"]
    assert {key: first[key] for key in ("id", "from", "size", "received", "next_attempt")} == {
        "id": A,
        "from": "a@sender.example",
        "size": len(BODY),
        "received": "2026-11-22T10:00:00Z",
        "next_attempt": "2026-11-22T12:30:00Z",
    }
    (to,) = first["to"]
    assert {key: to[key] for key in ("address", "state", "reason")} == {
        "address": "me@ours.example",
        "state": "queued",
        "reason": "451 4.7.1 try later",
    }
    assert (second["next_attempt"], second["to"][0]["state"]) == (None, "held")


def test_filters_of_the_list(site: Site, gateway: Gateway) -> None:
    assert [one["id"] for one in site.json("list", "--state", "held")["messages"]] == [B]
    assert [one["id"] for one in site.json("list", "01AA")["messages"]] == [A]
    assert site.json("list", "--to", "nobody@ours.example") == {"messages": []}
    assert site.run("list", "--domain", "nowhere.example").stdout == "No message in the queue fits.\n"
    assert site.run("list", "--from", "a@sender.example").stdout.count("a@sender.example") == 2


def test_an_empty_queue_says_so(site: Site, gateway: Gateway) -> None:
    gateway.letters.clear()
    assert site.run("list").stdout == "The queue is empty.\n"
    assert site.json("list") == {"messages": []}


def test_a_long_queue_comes_in_portions(site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_PAGE", 3)
    gateway.letters.update({f"02AAAAAAAAAAAA{n:02}": letter(f"02AAAAAAAAAAAA{n:02}", hours=2 + n) for n in range(8)})
    assert len(site.json("list")["messages"]) == 10
    assert gateway.verbs() == ["select", "list", "list", "list", "list"]
    assert site.run("list").stdout.endswith("10 messages, 10 recipients: 9 queued, 1 held\n")
    assert site.run("list").stdout.count("REASON") == 1


def test_many_ids_go_in_portions_that_the_socket_takes(site: Site, gateway: Gateway) -> None:
    ids = [f"02{number:014}" for number in range(4000)]  # 4,000 × 20 octets are more than a request may have
    gateway.letters.update({id: letter(id) for id in ids})
    assert site.json("delete", "--yes", *ids)["changed"] == 4000
    assert set(gateway.letters) == {A, B}


def test_nothing_that_a_stranger_wrote_reaches_the_terminal_raw(site: Site, gateway: Gateway) -> None:
    evil = "\x1b]0;owned\x07 \x9b2J \u202e \r\n forged"
    progress = Progress(State.QUEUED, DUE, 1, 0.0, evil, evil)
    content = b"Subject: \x1b[2J\xff\r\nX-\x07: \xe2\x80\xae\r\n\r\n"
    one = letter(A, ("me@ours.example", "me@inbox.example", progress), content=content)
    gateway.letters[A] = replace(one, author=evil, message_id=evil)
    for arguments in (["list"], ["show", A], ["show", A, "--headers"], ["list", "--json"], ["show", A, "--json"]):
        output = site.run(*arguments).output
        assert output.isprintable() or not [c for c in output if not c.isprintable() and c not in "\n\t"]
        assert "\n forged" not in output


def test_json_is_printable() -> None:
    assert json.loads(as_json({"a": "\x7f\x1b"})) == {"a": "\x7f\x1b"}
    assert as_json({"a": "\x7f\x1b"}).isprintable()


def test_tabs_of_folded_header_lines_stay() -> None:
    assert list(header_lines("A: b\r\n\tc\x1b\r\n")) == ["A: b", "\tc\\x1b"]


def test_show_tells_the_story(site: Site, gateway: Gateway) -> None:
    text = site.run("show", "01AA").stdout
    assert f"{A}: mail, 48 octets, in the queue since 2026-11-22T10:00:00Z" in text
    for words in (
        "from        a@sender.example, sent on as a@sender.example",
        "Message-ID  <1@sender.example>",
        "to me@ours.example, that is me@inbox.example: queued",
        "so far: 3 attempts, in the queue for 2 h",
        "last answer of mx.inbox.example[192.0.2.9]:25: 451 4.7.1 try later",
        "after 4 d 22 h more without success it is returned to its sender",
        f"forwarder queue retry {A}",
        f"forwarder queue delete {A}",
    ):
        assert words in text
    assert "queue release" not in text
    text = site.run("show", B).stdout
    assert "next: nothing, until you decide; the owner will be told" in text
    assert f"forwarder queue release {B}" in text and "queue retry" not in text


def test_show_as_json_and_with_headers(site: Site, gateway: Gateway) -> None:
    assert site.json("show", A)["id"] == A
    assert site.json("show", A, "--headers")["headers"].startswith("Received: from a by b\r\n")
    assert site.run("show", A, "--headers").stdout.endswith("From: a@sender.example\nSubject: hello\n")


def test_show_writes_the_exact_octets(site: Site, gateway: Gateway) -> None:
    body = bytes(range(256)) * 50_000  # more than one slice
    gateway.letters[A] = letter(A, content=body)
    result = site.run("show", A, "--content")
    assert result.exit_code == 0
    assert result.stdout_bytes == HEAD + b"Delivered-To: me@ours.example\r\n" + body
    assert gateway.verbs() == ["show", "content", "content"]


def test_octets_do_not_go_to_a_terminal(site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_is_terminal", lambda stream: True)
    result = site.run("show", A, "--content")
    assert result.exit_code == 2 and "> FILE" in result.output and not gateway.asked


# What is done


def test_each_action_does_what_it_says(site: Site, gateway: Gateway) -> None:
    assert site.run("hold", A).stdout == "1 recipient held: nothing is tried until it is released\n"
    assert gateway.office.progress(A).state is State.HELD
    assert "time in the queue begins anew" in site.run("release", A).stdout
    assert site.run("retry", A).stdout == "1 recipient due now\n"
    assert site.run("resend", A, "--to", "b@elsewhere.example").stdout.splitlines() == [
        "1 recipient sent to the other address in its place",
        "new in the queue: NEW0000000000001",
    ]
    assert site.run("bounce", B, "--yes").stdout.splitlines() == [
        "1 recipient returned to the sender",
        "new in the queue: DSNBBBBBBBBBBBBB",
    ]
    assert site.run("delete", "NEW0", "--yes").stdout == "1 recipient deleted\n"
    assert list(gateway.letters) == ["DSNBBBBBBBBBBBBB"]


@pytest.mark.parametrize("verb", ACTS)
def test_json_of_an_action(site: Site, gateway: Gateway, verb: str) -> None:
    yes = ["--yes"] if verb in ("bounce", "delete") else []
    tree = site.json(verb, "--all", *yes)
    assert list(tree) == ["verb", "changed", "skipped", "unknown", "new", "problems"]
    changed = 2 if yes else 1
    assert (tree["verb"], tree["changed"], tree["skipped"], tree["unknown"]) == (verb, changed, [], [])


def test_deleting_twice_is_an_unknown_message(site: Site, gateway: Gateway) -> None:
    assert site.run("delete", A, "--yes").exit_code == 0
    again = site.run("delete", A, "--yes")
    assert (again.exit_code, again.stdout) == (1, f"{A}: no such message in the queue\n")
    assert site.json("delete", A, "--yes")["unknown"] == [A]


def test_what_is_left_as_it_was_is_told(site: Site, gateway: Gateway) -> None:
    result = site.run("hold", A, B)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "1 recipient held: nothing is tried until it is released",
        f"left as it was: {B}: held already",
    ]
    assert site.json("hold", B)["skipped"] == [{"id": B, "address": None, "reason": "held already"}]


def test_nothing_fits(site: Site, gateway: Gateway) -> None:
    result = site.run("delete", "--to", "nobody@ours.example", "--yes")
    assert (result.exit_code, result.stdout) == (0, "No message in the queue fits: nothing was done.\n")
    assert site.json("retry", "--domain", "nowhere.example")["changed"] == 0


def test_a_failure_half_way_tells_what_was_done(site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "_PORTION", 1)
    desk = gateway.office.desk.handle

    async def failing(request: Mapping[str, object]) -> Mapping[str, object]:
        if request["verb"] == "delete" and request["ids"] == [B]:
            return {"ok": False, "status": 1, "problems": ["the disk is gone"]}
        return await desk(request)

    monkeypatch.setattr(gateway.office.desk, "handle", failing)
    result = site.run("delete", "--all", "--yes")
    assert (result.exit_code, result.stdout) == (1, "1 recipient deleted\nthe disk is gone\n")


# What is refused


@pytest.mark.parametrize("verb", [*ACTS, "resend"])
def test_nothing_is_done_to_what_nobody_named(site: Site, gateway: Gateway, verb: str) -> None:
    to = ["--to", "b@elsewhere.example"] if verb == "resend" else []
    result = site.run(verb, *to)
    assert result.exit_code == 2 and "--all" in result.output
    assert not gateway.asked


@pytest.mark.parametrize("verb", ["bounce", "delete"])
def test_what_cannot_be_undone_wants_a_yes(site: Site, gateway: Gateway, verb: str) -> None:
    result = site.run(verb, "--all")
    assert result.exit_code == 2
    assert "2 messages" in result.stderr and "--yes" in result.stderr
    assert len(gateway.letters) == 2


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("typed", "status", "left"), [("y\n", 0, 1), ("n\n", 1, 2), ("\n", 1, 2)])
def test_on_a_terminal_it_asks(site: Site, gateway: Gateway, typed: str, status: int, left: int) -> None:
    result = site.run("delete", A, typed=typed)
    assert (result.exit_code, len(gateway.letters)) == (status, left)
    assert "Delete 1 message for good, telling nobody? [y/N]" in result.stderr
    assert ("Nothing was changed." in result.stderr) == (left == 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["delete", A, "--all", "--yes"], "contradict"),
        (["delete", "--all", "--state", "held", "--yes"], "--all means every message"),
        (["delete", "01B", "--yes"], "too short"),
        (["delete", "--to", "", "--yes"], "to: expected"),
        (["delete", "--to", "nonsense", "--yes"], "not an address"),
        (["retry", "--domain", "a b"], "not a domain"),
        (["list", "--state", "bounced"], "bounced"),
        (["resend", A, "--to", "nonsense"], "not an address"),
        (["resend", A], "--to"),
        (["show", A, "--content", "--json"], "--content"),
    ],
)
def test_wrong_use_is_refused(site: Site, gateway: Gateway, arguments: list[str], words: str) -> None:
    result = site.run(*arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert gateway.letters == Office(letter(A), held(B)).spool.letters


def test_a_refusal_of_the_desk_is_wrong_use_as_well(
    site: Site, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.office.desk, "_refuses", lambda to: "it would come back to us")
    result = site.run("resend", A, "--to", "me@ours.example")
    assert (result.exit_code, result.stderr) == (2, "me@ours.example: it would come back to us\n")


def test_an_id_that_fits_several_is_refused_with_their_names(site: Site, gateway: Gateway) -> None:
    gateway.letters[C] = letter(C)
    for arguments in (["delete", "01BB", "--yes"], ["list", "01BB"], ["show", "01BB"]):
        result = site.run(*arguments)
        assert result.exit_code == 2
        assert B in result.stderr and C in result.stderr
    assert json.loads(site.run("list", "01BB", "--json").stdout)["problems"]
    assert len(gateway.letters) == 3


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["retry"], ["delete", "--yes"]])
def test_an_unknown_id_is_a_problem(site: Site, gateway: Gateway, arguments: list[str]) -> None:
    result = site.run(*arguments, "09ZZZZ")
    assert result.exit_code == 1 and "09ZZZZ: no such message in the queue" in result.output


# Without a gateway


def test_where_no_spool_was_ever_made_the_queue_is_empty_and_nothing_is_made(site: Site) -> None:
    before = sorted(site.folder.rglob("*"))
    assert site.run("list").stdout == "The queue is empty.\n"
    assert site.json("list") == {"messages": []}
    assert site.run("delete", A, "--yes").exit_code == 1
    assert site.run("show", A).exit_code == 1
    assert site.run("delete", "--all", "--yes").exit_code == 0
    assert sorted(site.folder.rglob("*")) == before


def test_a_socket_behind_which_nobody_answers_never_opens_the_spool(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.spool.mkdir()
    monkeypatch.setattr(queue_access, "_PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(site.socket))
        silent.listen()
        result = site.run("list")
    assert result.exit_code == 1 and "did not answer" in result.stderr
    assert list(site.spool.iterdir()) == []


def test_a_gateway_that_does_not_know_the_command_is_told(site: Site) -> None:
    older = Gateway(site.socket)
    older._server._handlers = {}
    try:
        result = site.run("list")
    finally:
        older.close()
    assert result.exit_code == 1 and "is it older" in result.stderr


def test_a_spool_that_is_no_folder(site: Site) -> None:
    site.spool.symlink_to(site.folder)
    result = site.run("list")
    assert result.exit_code == 1 and "expected a folder" in result.stderr


async def _kept(folder: Path, *letters: Letter) -> None:
    spool = await EmbeddedSpool.open(folder, clock=SystemClock(), log=RecordingLog())
    await spool.store(letters)
    await spool.close()


def test_offline_it_works_on_the_spool_itself(site: Site) -> None:
    asyncio.run(_kept(site.spool, letter(A), held(B)))
    assert [one["id"] for one in site.json("list")["messages"]] == [A, B]
    assert site.run("hold", "01AA").exit_code == 0
    assert site.json("release", B)["changed"] == 1
    assert [one["to"][0]["state"] for one in site.json("list")["messages"]] == ["held", "queued"]
    assert site.run("show", B, "--content").stdout_bytes == HEAD + b"Delivered-To: me@ours.example\r\n" + BODY
    (made,) = site.json("resend", A, "--to", "b@elsewhere.example")["new"]
    assert site.json("show", made)["to"][0]["destination"] == "b@elsewhere.example"
    assert site.json("delete", "--all", "--yes")["changed"] == 2
    assert site.run("list").stdout == "The queue is empty.\n"


def test_the_filters_mean_the_same_to_the_store(site: Site) -> None:
    one = letter(A, ("ONE@ours.example", "one@inbox.example", QUEUED), ("two@ours.example", "two@b.example", HELD))
    asyncio.run(_kept(site.spool, one, letter(B, sender=None)))
    for arguments, found in (
        (["--to", "one@OURS.example"], [A]),
        (["--to", "Two@B.example"], [A]),
        (["--domain", "b.example"], [A]),
        (["--domain", "example"], []),
        (["--from", "<>"], [B]),
        (["--from", "A@sender.example"], [A]),
        (["--state", "held"], [A]),
        (["--state", "held", "--to", "one@ours.example"], []),
        (["01bb"], [B]),
    ):
        assert [message["id"] for message in site.json("list", *arguments)["messages"]] == found, arguments


@pytest.mark.parametrize("address", ["x@ours.example", "x@OURS.example", "me@mx1.example.org"])
def test_nothing_is_resent_to_where_it_would_come_back(site: Site, address: str) -> None:
    """As a running gateway refuses it: the sender would be sent a bounce for what the operator mistyped."""
    asyncio.run(_kept(site.spool, letter(A)))
    result = site.run("resend", A, "--to", address)
    assert result.exit_code == 2 and "is handled here: name the mailbox" in result.stderr
    assert [message["id"] for message in site.json("list")["messages"]] == [A]


def test_without_rules_nobody_knows_what_would_come_back(site: Site) -> None:
    asyncio.run(_kept(site.spool, letter(A)))
    (site.folder / "rules" / "ours.rules").write_text("[ours.example\n")
    result = site.run("resend", A, "--to", "x@elsewhere.example")
    assert result.exit_code == 2 and "cannot be told without the rules" in result.stderr
    assert "ours.rules:1:" in result.stderr


def test_a_spool_in_use_is_refused(site: Site) -> None:
    async def beside_another() -> Result:
        spool = await EmbeddedSpool.open(site.spool, clock=SystemClock(), log=RecordingLog())
        try:
            return await asyncio.to_thread(site.run, "list")
        finally:
            await spool.close()

    result = asyncio.run(beside_another())
    assert result.exit_code == 1 and "another gateway uses this spool" in result.stderr


def test_while_somebody_thinks_the_spool_is_not_kept_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    open_now = 0
    office = Office(letter(A))

    @asynccontextmanager
    async def offline(config: Config) -> AsyncIterator[QueueDesk]:
        nonlocal open_now
        open_now += 1
        yield office.desk
        open_now -= 1

    def asked(question: str, err: bool) -> bool:
        assert open_now == 0
        return True

    site.spool.mkdir()
    monkeypatch.setattr(queue_offline, "offline_desk", offline)
    monkeypatch.setattr(queue, "_somebody_is_there", lambda: True)
    monkeypatch.setattr(click, "confirm", asked)
    assert site.run("delete", A).exit_code == 0
    assert not office.spool.letters


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@needs_root
def test_what_root_does_leaves_no_files_of_root(site: Site) -> None:
    user = pwd.getpwnam("nobody")
    asyncio.run(_kept(site.spool, letter(A), letter(B)))
    for path in (site.spool, *site.spool.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    _opened_to_others(site.spool.parent)
    assert site.run("hold", A).exit_code == 0
    assert site.run("resend", B, "--to", "b@elsewhere.example").exit_code == 0
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (site.spool, *site.spool.rglob("*"))}
    assert owners == {(user.pw_uid, user.pw_gid)}
    assert (os.geteuid(), os.getegid()) == (0, 0)


BLIND = """
import os, sys

class Blind:
    def find_spec(self, name, path=None, target=None):
        if os.geteuid() != 0:
            raise ImportError(f"{name} cannot be read by this user")

sys.meta_path.insert(0, Blind())
from forwarder.cli import main
main()
"""


@needs_root
@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--domain", "bücher.example"],
        ["show", A, "--headers"],
        ["list", "--json"],
        ["delete", "--all", "--yes"],
    ],
)
def test_the_owner_need_not_be_able_to_read_the_program(site: Site, arguments: list[str]) -> None:
    user = pwd.getpwnam("nobody")
    progress = Progress(State.QUEUED, DUE, 1, 0.0, "\x1b")
    asyncio.run(_kept(site.spool, letter(A, ("me@ours.example", "me@xn--bcher-kva.example", progress))))
    for path in (site.spool, *site.spool.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    _opened_to_others(site.spool.parent)
    command = [sys.executable, "-c", BLIND, "queue", *arguments, "--config", str(site.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_another_user_is_told_what_to_do(site: Site) -> None:
    asyncio.run(_kept(site.spool, letter(A)))
    _opened_to_others(site.spool.parent)
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        result = site.run("list")
    finally:
        os.seteuid(0)
    assert result.exit_code == 1
    assert "belongs to root" in result.stderr and "sudo -u root forwarder queue" in result.stderr


@needs_root
def test_a_socket_that_may_not_be_asked_never_opens_the_spool(site: Site, gateway: Gateway) -> None:
    user = pwd.getpwnam("nobody").pw_uid
    site.spool.mkdir()
    os.chown(site.spool, user, -1)
    _opened_to_others(site.socket.parent)
    _opened_to_others(site.spool.parent)
    os.seteuid(user)
    try:
        result = site.run("list")
    finally:
        os.seteuid(0)
    assert result.exit_code == 1 and "permission denied" in result.stderr
    assert list(site.spool.iterdir()) == []


def _opened_to_others(folder: Path) -> None:
    """Let every user pass through a folder and those above it, as /var/lib does."""
    for path in (folder, *folder.parents):
        if path.stat().st_mode & 0o001 == 0:
            path.chmod(path.stat().st_mode | 0o011)


def test_help_of_the_group_loads_no_heavy_library() -> None:
    code = "import sys; from click.testing import CliRunner; from forwarder.cli import main\n"
    code += "CliRunner().invoke(main, ['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "forwarder.cli.queue" not in loaded
