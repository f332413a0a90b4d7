"""`python -m forwarder.cli.worker PARENT CHANNEL SOCKET…`: a worker; only `forwarder serve` starts it.

What a terminal sends to the whole group is for the parent, so it is ignored from the first moment on; and from then on
the death of the parent is the end: whoever loads the program still would hold its sockets. A parent that has died
before that is found out by its number.
"""

import ctypes
import gc
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)
_ORPHANED = 3  # exit status


def main(arguments: list[str]) -> None:
    """Serve clients on descriptors that the parent opened."""
    parent, channel, *listening = map(int, arguments)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # its death came first, and nobody will send the signal
        sys.exit(_ORPHANED)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # what is loaded stays
    from forwarder.app.worker import work

    gc.enable()
    work(channel, listening)


if __name__ == "__main__":
    main(sys.argv[1:])
