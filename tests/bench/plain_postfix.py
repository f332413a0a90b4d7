"""A plain Postfix that relays to a sink: Debian's defaults, an instance and a folder of its own, an unprivileged port.

Needs root, since master(8) does. It ends with the block, and with the process that runs the block however that ends:
master(8) takes its programs down with it. `why_not` says what is missing.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from grp import getgrnam
from pathlib import Path

_MASTER = """\
{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = {host}
inet_protocols = ipv4
relayhost = [{relay}]:{relay_port}
disable_dns_lookups = yes
local_recipient_maps =
alias_maps =
alias_database =
message_size_limit = 60000000
"""

_PRIVATE = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)
# Ends Postfix when the other end of its stdin is closed, by us or by our end.
_GUARD = "import os, signal, sys; sys.stdin.read(); os.kill(int(sys.argv[1]), signal.SIGTERM)"
_UP_WITHIN = 15.0  # seconds
_DOWN_WITHIN = 5.0


def why_not() -> str:
    """Say why Postfix cannot run here; "" if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    return "" if shutil.which("postconf") else "Debian's package postfix is not installed"


@contextmanager
def postfix(folder: Path, listen: tuple[str, int], relay: tuple[str, int]) -> Iterator[int]:
    """Run an instance below `folder`; give the process group of all its programs."""
    _lay_out(folder)
    host, port = listen
    (folder / "main.cf").write_text(_MAIN.format(folder=folder, host=host, relay=relay[0], relay_port=relay[1]))
    (folder / "master.cf").write_text(_MASTER.format(host=host, port=port))
    for name in ("main.cf", "master.cf"):
        os.utime(folder / name, (0, 0))  # Postfix waits until a file that was just written has settled
    words = ["postconf", "-d", "-h", "daemon_directory"]
    programs = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    words = [f"{programs}/master", "-c", str(folder), "-d"]
    master = subprocess.Popen(words, stderr=subprocess.DEVNULL, start_new_session=True)
    # master(8) changes its user for moments, which makes the kernel forget prctl(2)'s PR_SET_PDEATHSIG.
    words = [sys.executable, "-ISc", _GUARD, str(master.pid)]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
    try:
        _wait_until_up(listen, master)
        yield master.pid
    finally:
        guard.kill()  # before the number can be another process's
        guard.communicate()
        _stop(master)


def _stop(master: "subprocess.Popen[bytes]") -> None:
    master.terminate()
    try:
        master.wait(timeout=_DOWN_WITHIN)
    except subprocess.TimeoutExpired:
        os.killpg(master.pid, signal.SIGKILL)
        master.wait()


def _lay_out(folder: Path) -> None:
    owner, postdrop = pwd.getpwnam("postfix"), getgrnam("postdrop").gr_gid
    folder.chmod(0o755)
    queue = folder / "queue"
    for name in (*_PRIVATE, "pid", "maildrop", "public"):
        (queue / name).mkdir(parents=True)
    for name in _PRIVATE:
        os.chown(queue / name, owner.pw_uid, -1)
        (queue / name).chmod(0o700)
    for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
        os.chown(queue / name, owner.pw_uid, postdrop)
        (queue / name).chmod(mode)
    (folder / "data").mkdir()
    os.chown(folder / "data", owner.pw_uid, -1)


def _wait_until_up(listen: tuple[str, int], master: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + _UP_WITHIN
    while time.monotonic() < end and master.poll() is None:
        try:
            socket.create_connection(listen, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise OSError("Postfix did not come up: see its log")
