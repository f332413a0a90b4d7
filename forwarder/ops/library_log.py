"""What libraries say through `logging` (aiosmtpd, asyncio), brought into the event log.

Warnings and worse become the event `alert`, on one line with the innermost places of a traceback; everything below is
dropped, for aiosmtpd tells every command. The same line of code is heard at most five times a minute, so that a peer
who can provoke an error cannot fill the disk.
"""

import logging
import traceback
from types import TracebackType

from forwarder.policy.limiter import SlidingLimiter
from forwarder.ports import Clock, EventLog

_PLACES = 6
_LIMIT = 5  # of one line of code per minute


class LibraryHandler(logging.Handler):
    """Turns log records into events."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._limiter = SlidingLimiter(clock.monotonic, max_keys=1000)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one event; never raises."""
        try:
            if self._limiter.take(f"{record.name} {record.pathname}:{record.lineno}", _LIMIT, 60):
                self._tell(record)
        except Exception:  # arguments that do not fit the message; logging would print to stderr
            self._log.event("alert", component=record.name, text=str(record.msg))

    def _tell(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._log.event(
            "alert",
            component=record.name,
            error=f"{type(error).__name__}: {error}" if error else None,
            at=_places(error.__traceback__) if error else None,
            text=record.getMessage(),
        )


def adopt_library_logging(log: EventLog, clock: Clock) -> None:
    """Make the root logger speak through the event log alone."""
    root = logging.getLogger()
    root.handlers[:] = [LibraryHandler(log, clock)]
    root.setLevel(logging.WARNING)


def _places(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)[-_PLACES:]
    return " > ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames)
