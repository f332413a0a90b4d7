"""A real Postfix: an instance of its own, with its own queue, configuration, log and address.

It needs root and a namespace world (`why_not` says what is missing), since Postfix asks libc for names. As a sender
mail is submitted with `sendmail`; its queue is read with `queue` and retried with `flush`. As a receiver it takes
mail for `mailboxes` and no others, and delivers with virtual(8) to one Maildir each, LF for CRLF and with Return-Path,
Delivered-To and X-Original-To in front. The transport `bouncer:` bounces a message after having accepted it.
"""

import functools
import json
import os
import pwd
import re
import subprocess
from collections.abc import Mapping, Sequence
from grp import getgrnam

from tests.lab.maildir import Maildir, wait_for
from tests.lab.process import Process
from tests.lab.world import Host, World, missing, namespace_refusal

_SERVICES = """\
{listen} inet n - n - - smtpd
pickup unix n - n 1 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 5 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
smtp unix - - n - - smtp
error unix - - n - - error
bouncer unix - n n - - pipe user=nobody argv=/bin/sh -c {{echo "5.2.1 the mailbox is gone"; exit 69}}
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_QUEUE_FOLDERS = (
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


@functools.cache
def why_not() -> str:
    """Say why Postfix cannot run here; "" if it can."""
    return namespace_refusal() or missing(["postfix", "postconf", "postqueue", "sendmail"])


@functools.cache
def _program_folder() -> str:
    words = ["postconf", "-d", "-h", "daemon_directory"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


class Postfix(Process):
    """One instance. `access` maps recipients to access(5) actions; `settings` go to main.cf."""

    def __init__(
        self,
        world: World,
        host: Host,
        mailboxes: Sequence[str] = (),
        *,
        access: Mapping[str, str] | None = None,
        transport: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(world, world.folder / f"postfix-{host.name}")
        self.host, self._mailboxes = host, mailboxes
        self._access, self._transport, self._settings = access or {}, transport or {}, settings or {}
        self._make_folders()
        self._write()

    def _make_folders(self) -> None:
        owner, group = pwd.getpwnam("postfix"), getgrnam("postdrop").gr_gid
        queue = self.folder / "queue"
        for name in (*_QUEUE_FOLDERS, "pid", "maildrop", "public"):
            (queue / name).mkdir(parents=True, exist_ok=True)
        for name in _QUEUE_FOLDERS:
            os.chown(queue / name, owner.pw_uid, owner.pw_gid)
            (queue / name).chmod(0o700)
        for name, mode in (("maildrop", 0o1730), ("public", 0o2710)):
            os.chown(queue / name, owner.pw_uid, group)
            (queue / name).chmod(mode)
        for name, user in (("data", owner.pw_uid), ("mail", pwd.getpwnam("nobody").pw_uid)):
            (self.folder / name).mkdir(exist_ok=True)
            os.chown(self.folder / name, user, -1)

    def _write(self) -> None:
        main = {
            "compatibility_level": "3.6",
            "queue_directory": f"{self.folder}/queue",
            "data_directory": f"{self.folder}/data",
            "maillog_file": f"{self.folder}/log",
            "maillog_file_prefixes": str(self.folder),
            "myhostname": self.host.name,
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": self.host.address,
            "inet_protocols": "ipv6" if self.host.is_ipv6 else "ipv4",
            "smtp_bind_address6" if self.host.is_ipv6 else "smtp_bind_address": self.host.address,
            "smtp_host_lookup": "dns",
            "smtp_tls_security_level": "may",
            "smtp_address_preference": "any",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": ", ".join(sorted({box.partition("@")[2] for box in self._mailboxes})),
            "virtual_mailbox_base": f"{self.folder}/mail",
            "virtual_mailbox_maps": f"texthash:{self.folder}/mailboxes",
            "virtual_uid_maps": f"static:{pwd.getpwnam('nobody').pw_uid}",
            "virtual_gid_maps": f"static:{pwd.getpwnam('nobody').pw_gid}",
            "mailbox_size_limit": "0",
            "virtual_mailbox_limit": "0",
            "message_size_limit": "60000000",
            "transport_maps": f"texthash:{self.folder}/transport",
            "smtpd_relay_restrictions": "reject_unauth_destination",
            "smtpd_recipient_restrictions": f"check_recipient_access texthash:{self.folder}/access",
            "queue_run_delay": "2s",
            "minimal_backoff_time": "2s",
            "maximal_backoff_time": "3s",
            "smtpd_error_sleep_time": "0",
            "in_flow_delay": "0",
        }
        main.update(self._settings)
        (self.folder / "main.cf").write_text("".join(f"{key} = {value}\n" for key, value in main.items()))
        listen = f"[{self.host.address}]:{self.host.port}"
        (self.folder / "master.cf").write_text(_SERVICES.format(listen=listen))
        self._table("mailboxes", {box: f"{box}/" for box in self._mailboxes})
        self._table("access", self._access)
        self._table("transport", self._transport)

    def _table(self, name: str, rows: Mapping[str, str]) -> None:
        (self.folder / name).write_text("".join(f"{key} {value}\n" for key, value in rows.items()))

        for file in self.folder.iterdir():
            os.utime(file, (0, 0))  # Postfix waits until a file that was just written has settled

    def start(self) -> None:
        """Run master(8) in the foreground until it listens."""
        self.spawn([f"{_program_folder()}/master", "-c", str(self.folder), "-d"])
        self.wait_listening(self.host.port, self.host.address)

    def sendmail(self, sender: str, recipients: Sequence[str] | str, octets: bytes) -> None:
        """Submit a message (lines end in LF) as a local user would."""
        to = [recipients] if isinstance(recipients, str) else recipients
        words = ["sendmail", "-C", str(self.folder), "-oi", "-f", sender, "--", *to]
        done = self.world.run(*words, text=octets)
        assert done.returncode == 0, done.stderr

    @property
    def log(self) -> str:
        """The mail log so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_log(self, pattern: str, timeout: float = 25) -> None:
        """Wait for a line of the log that matches."""
        wait_for(lambda: re.search(pattern, self.log), timeout, f"no {pattern!r} in:\n{self.log[-4000:]}")

    def queue(self) -> list[dict[str, object]]:
        """Give what is in the queue, as `postqueue -j` prints it."""
        done = self.world.run("postqueue", "-c", str(self.folder), "-j")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait_empty(self, timeout: float = 25) -> None:
        """Wait until the queue is empty."""
        wait_for(lambda: not self.queue(), timeout, "the queue does not empty")

    def flush(self) -> None:
        """Try everything in the queue now."""
        self.world.run("postqueue", "-c", str(self.folder), "-f")

    def drop(self) -> None:
        """Delete everything in the queue."""
        self.world.run("postsuper", "-c", str(self.folder), "-d", "ALL")

    def forget_mail(self) -> None:
        """Empty all mailboxes."""
        for file in (self.folder / "mail").glob("*/new/*"):
            file.unlink()

    def mailbox(self, address: str) -> Maildir:
        """Give the Maildir of an address."""
        return Maildir(self.folder / "mail" / address)
