"""The entry of a worker: it must not outlive whoever started it, however early that dies."""

import os
import socket
import subprocess
import sys


def test_a_worker_whose_parent_died_before_it_could_say_so_ends_at_once() -> None:
    """The channel stays open here: nothing but the parent's number tells."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        gone, channel = str(os.getppid()), str(theirs.fileno())
        words = [sys.executable, "-m", "forwarder.cli.worker", gone, channel]
        done = subprocess.run(words, pass_fds=(theirs.fileno(),), timeout=30, check=False)
    assert done.returncode == 3
