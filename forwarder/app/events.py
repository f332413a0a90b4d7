"""The log of one process, as the configuration asks for it."""

from forwarder.config import Config
from forwarder.ops.clock import SystemClock
from forwarder.ops.library_log import adopt_library_logging
from forwarder.ops.log import Level, LogFormat, open_log
from forwarder.ports import EventLog


def open_event_log(config: Config, worker: int | None = None) -> EventLog:
    """Give the log, and let libraries speak through it; a worker's events carry its number."""
    clock = SystemClock()
    log: EventLog = open_log(LogFormat(config.log.format.value), Level[config.log.level.name], clock)
    if worker is not None:
        log = log.bind(worker=worker)
    adopt_library_logging(log, clock)
    return log
