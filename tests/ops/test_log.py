"""The event log: one event, one line, whatever the values are; a log that fails is not noticed by the mail."""

import json
import os
import socket
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.model.address import Address
from forwarder.model.reply import Reply
from forwarder.ops.journald import Journal
from forwarder.ops.log import JournalSink, JsonSink, Level, Log, LogFormat, TextSink, open_log, sentence
from forwarder.ops.log import escape as escaped
from tests.fakes import FakeClock


class Written:
    """A regular file to log to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().split("\n")[:-1]


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Written]:
    file = Written(tmp_path / "log")
    yield file
    os.close(file.descriptor)


def text_log(written: Written, level: Level = Level.INFO) -> Log:
    return open_log(LogFormat.TEXT, level, FakeClock(), descriptor=written.descriptor, environ={})


def test_text_reads_as_a_sentence(written: Written) -> None:
    log = text_log(written).bind(id="x7")
    log.event("delivered", text="2.0.0 OK", from_=Address("a", "b.example"), to="c@d.example", code=250, tls=None)
    assert written.lines == [
        '2026-11-22T12:00:00Z delivered id=x7 from=<a@b.example> to=<c@d.example> code=250 "2.0.0 OK"'
    ]


def test_the_null_sender_and_odd_senders_are_plain(written: Written) -> None:
    log = text_log(written)
    log.event("accepted", from_="")
    log.event("accepted", from_=Address('a" b', "c.example"))
    assert [line.partition("from=")[2] for line in written.lines] == ["<>", r'"\"a\\\" b\"@c.example"']


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\nb", r'"a\r\nb"'),
        ("\x1b[31m", r'"\x1b[31m"'),
        ("a\u2028b", r'"a\u2028b"'),
        ("\x85\x9b", r'"\x85\x9b"'),
        ("\ud800", r'"\ud800"'),
        ("\u202egpj", r'"\u202egpj"'),
        ("\\n", r'"\\n"'),
        ('say "hi"', r'"say \"hi\""'),
        (b"caf\xc3", r'"caf\\xc3"'),
        ("häßlich", '"häßlich"'),
        (LogFormat.TEXT, '"text"'),
        (True, '"yes"'),
        (0.25, '"0.250"'),
        (["a", 1], '"a,1"'),
        (Reply(550, "5.1.1", "no\nsuch"), '"550 5.1.1 no such"'),
    ],
)
def test_values_are_escaped(value: object, shown: str) -> None:
    assert sentence("reject", {"text": value}) == f"reject {shown}"


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["id", "from", "to", "text", "helo"]), st.text() | st.binary(), max_size=5))
def test_an_event_is_one_line_that_only_shows_itself(fields: dict[str, object]) -> None:
    line = sentence("reject", fields)
    assert len((line + "x").splitlines()) == 1
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cs", "Zl", "Zp"}


@settings(deadline=None)
@given(st.text(), st.text())
def test_escaping_is_unambiguous(one: str, other: str) -> None:
    assert (escaped(one) == escaped(other)) == (one == other)


def test_a_value_cannot_pose_as_another_field() -> None:
    assert sentence("reject", {"helo": "x code=250", "code": 550}) == 'reject helo="x code=250" code=550'
    assert sentence("reject", {"from": "a> code=<250"}) == 'reject from="a> code=<250"'


def test_long_values_are_cut() -> None:
    line = sentence("reject", {"text": "x" * 100_000})
    assert line == 'reject "' + "x" * 1000 + '…"'
    assert len(sentence("reject", {"to": ["x" * 100_000] * 100_000})) < 1100


class Endless(list[str]):
    def __iter__(self) -> Iterator[str]:
        for number in range(1_000_000):
            assert number <= 1000
            yield "x"


def test_of_long_lists_only_the_beginning_is_looked_at() -> None:
    assert len(sentence("routed", {"to": Endless()})) < 1100


def test_a_journald_that_is_stuck_is_not_waited_for(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "socket"))
    with journal_at(tmp_path / "socket"):
        log = Log(JournalSink(journal), Level.INFO, FakeClock())
        for _ in range(2000):
            log.event("accepted")
    journal.close()
    assert log.dropped > 0


def test_levels_decide_what_is_written(written: Written) -> None:
    for level in (Level.NOTICE, Level.DEBUG):
        log = text_log(written, level)
        for name in ("connect", "accepted", "reject", "alert"):
            log.event(name)
    assert [line.split(" ")[1] for line in written.lines] == [
        "reject",
        "alert",
        "connect",
        "accepted",
        "reject",
        "alert",
    ]


def test_json_lines_give_the_values_back(written: Written) -> None:
    log = Log(JsonSink(written.descriptor), Level.INFO, FakeClock()).bind(id="x")
    log.event(
        "reject", text="a\r\n\u2028\x7f\x9bb", code=550, remote=True, seconds=0.25, odd=float("nan"), time="forged"
    )
    (line,) = written.lines
    assert line.isascii() and line.isprintable()
    assert json.loads(line) == {
        "time": "2026-11-22T12:00:00.000Z",
        "event": "reject",
        "id": "x",
        "text": "a\r\n\u2028\x7f\x9bb",
        "code": 550,
        "remote": True,
        "seconds": 0.25,
        "odd": "nan",
    }


def journal_at(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(str(path))
    server.settimeout(5)
    return server


def test_journald_gets_named_fields(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "socket"))
    with journal_at(tmp_path / "socket") as server:
        Log(JournalSink(journal), Level.INFO, FakeClock()).bind(id="x").event(
            "deferred", to="a@b", code=451, text="a\nb"
        )
        entry = server.recv(65536)
    journal.close()
    assert entry.split(b"\n")[:-1] == [
        rb'MESSAGE=deferred id=x to=<a@b> code=451 "a\nb"',
        b"PRIORITY=5",
        b"SYSLOG_IDENTIFIER=forwarder",
        b"FORWARDER_EVENT=deferred",
        b"FORWARDER_ID=x",
        b"FORWARDER_TO=a@b",
        b"FORWARDER_CODE=451",
        rb"FORWARDER_TEXT=a\nb",
    ]


def test_auto_is_the_journal_only_where_stderr_leads_to_it(written: Written, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        status = os.fstat(ours.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        log = open_log(LogFormat.AUTO, Level.INFO, FakeClock(), descriptor=ours.fileno(), environ=environ)
        assert isinstance(log._sink, JournalSink)
        log._sink._journal.close()
        for descriptor, environment in ((written.descriptor, environ), (ours.fileno(), {})):
            log = open_log(LogFormat.AUTO, Level.INFO, FakeClock(), descriptor=descriptor, environ=environment)
            assert isinstance(log._sink, TextSink)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_what_cannot_be_written_is_counted_and_nothing_else(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    log = open_log(LogFormat.TEXT, Level.INFO, FakeClock(), descriptor=writer, environ={})
    log.bind(id="x").event("accepted", to=Unprintable())
    assert log.dropped == 1
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    log.event("accepted")  # nobody reads the pipe: waiting here would stop the mail
    assert log.dropped == 2
    os.close(reader)
    log.event("accepted")
    assert log.dropped == 3
    os.close(writer)

    journal = Journal(str(tmp_path / "nobody"))
    log = Log(JournalSink(journal), Level.INFO, FakeClock())
    log.event("accepted")
    journal.close()
    assert log.dropped == 1


@pytest.mark.bench
@pytest.mark.parametrize("sink", [TextSink, JsonSink])
def test_cost_of_an_event(benchmark, written: Written, sink) -> None:  # type: ignore[no-untyped-def] # fixtures
    log = Log(sink(written.descriptor), Level.INFO, FakeClock()).bind(id="x7", from_="a@b.example")
    benchmark(lambda: log.event("delivered", to="c@d.example", relay="mx.d.example[192.0.2.1]:25", code=250, text="OK"))
