"""`python -m forwarder.cli.worker CHANNEL SOCKET…`: a worker; only `forwarder serve` starts it.

What a terminal sends to the whole group is for the parent, so it is ignored from the first moment on.
"""

import signal
import sys


def main(arguments: list[str]) -> None:
    """Serve clients on descriptors that the parent opened."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    from forwarder.app.worker import work

    parent, *listening = map(int, arguments)
    work(parent, listening)


if __name__ == "__main__":
    main(sys.argv[1:])
