"""Composition root: from the configuration to running objects.

wanted     what the files ask for, read and checked; how a worker gets the same without reading a file
settings   what the configuration means for each part
custody    what there is once: spool, queue runner, pacing, ledger
front      what serves clients: listener, sessions, courier; in this process or in each worker
service    the running gateway: sockets, control socket, signals, reload, systemd
crew       who serves clients: this process, or workers
worker     the process that serves clients where there are several
"""

from forwarder.app.service import Service, open_sockets
from forwarder.app.settings import checks_of, courier_settings
from forwarder.app.wanted import Unready, Wanted, read, read_rules, unsupported

__all__ = [
    "Service",
    "Unready",
    "Wanted",
    "checks_of",
    "courier_settings",
    "open_sockets",
    "read",
    "read_rules",
    "unsupported",
]
