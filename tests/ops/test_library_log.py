"""Library logging ends up as bounded alerts."""

import logging
from collections.abc import Iterator

import pytest

from forwarder.ops.library_log import LibraryHandler, adopt_library_logging
from tests.fakes import FakeClock, RecordingLog


@pytest.fixture
def log() -> Iterator[RecordingLog]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    recording = RecordingLog()
    adopt_library_logging(recording, FakeClock())
    yield recording
    root.handlers[:] = handlers
    root.setLevel(level)


def test_only_warnings_are_told(log: RecordingLog) -> None:
    logging.getLogger("mail.log").info("%r << MAIL FROM", "peer")
    logging.getLogger("asyncio").warning("slow %d", 3)
    assert log.events == [("alert", {"component": "asyncio", "text": "slow 3"})]


def test_nor_is_anything_else_put_together_for_nothing(log: RecordingLog) -> None:
    assert not logging.getLogger("mail.log").isEnabledFor(logging.INFO)


def test_a_library_that_sets_its_own_level_is_not_heard_more(log: RecordingLog) -> None:
    chatty = logging.getLogger("forwarder.tests.chatty")
    chatty.setLevel(logging.DEBUG)
    chatty.info("hello")
    assert log.events == []


def test_an_error_tells_where_it_came_from(log: RecordingLog) -> None:
    try:
        raise ValueError("a\r\nb")
    except ValueError:
        logging.getLogger("mail.log").exception("handler failed")
    ((_, fields),) = log.events
    assert fields["error"] == "ValueError: a\r\nb"
    assert str(fields["at"]).startswith("test_library_log.py:")


def test_one_place_is_heard_five_times_a_minute(log: RecordingLog) -> None:
    for number in range(1000):
        logging.getLogger("asyncio").error("broken %d", number)
    logging.getLogger("asyncio").error("another place")
    assert [fields["text"] for _, fields in log.events] == [*(f"broken {n}" for n in range(5)), "another place"]


def test_a_message_with_wrong_arguments_is_still_told() -> None:
    log = RecordingLog()
    LibraryHandler(log, FakeClock()).emit(
        logging.LogRecord("asyncio", logging.ERROR, "x.py", 1, "broken %d", ("text",), None)
    )
    assert log.named("alert") == [{"component": "asyncio", "text": "broken %d"}]
