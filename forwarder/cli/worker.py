"""`python -m forwarder.cli.worker CHANNEL SOCKET…`: a worker; only `forwarder serve` starts it.

What a terminal sends to the whole group is for the parent, so it is ignored from the first moment on; and from then on
the death of the parent is the end: whoever loads the program still would hold its sockets.
"""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str]) -> None:
    """Serve clients on descriptors that the parent opened."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from forwarder.app.worker import work

    parent, *listening = map(int, arguments)
    work(parent, listening)


if __name__ == "__main__":
    main(sys.argv[1:])
