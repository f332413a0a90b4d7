"""The small world of the demonstration: its names, its rules, its configuration.

`write_configuration` lets `forwarder init` write an installation as it would for anybody, and then turns to loopback
and high ports what must differ. Can fail: `CommandError` when `forwarder init` does.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from deploy.demo.installation import forwarder
from deploy.demo.letter import Signed
from deploy.demo.zone import Table
from forwarder.config import Config, Endpoint, LogFormat, as_text, load
from forwarder.ops.keys import load_keys
from forwarder.rewrite.signing_key import public_record

SENDER = "sender.example"
SERVED = "yours.example"
INBOX = "inbox.example"

_RULES = f"""\
# The rules of the demonstration: change them, then `forwarder rules reload`.
[{SERVED}]
you, hello   -> you@{INBOX}
news-*       -> you+${{local}}@{INBOX}
full         -> full@{INBOX}                  # its server refuses, and so do we
closed       -> reject "550 5.7.1 This address is no longer in use"
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the parts listen on loopback."""

    dns: int
    inbox: int
    gateway: int


def table(letter: Signed, gateway: str, inbox: str) -> Table:
    """Give the zone: who is the MX of whom, and the sender's key."""
    return {
        SENDER: {"MX": [f"10 mx.{SENDER}"], "TXT": [f"v=spf1 ip4:{gateway} -all"]},
        f"mx.{SENDER}": {"A": [gateway]},
        letter.key_name: {"TXT": [letter.key_record]},
        SERVED: {"MX": [f"10 mx.{SERVED}"]},
        f"fwd.{SERVED}": {"MX": [f"10 mx.{SERVED}"]},  # where bounces to rewritten senders come back
        f"mx.{SERVED}": {"A": [gateway]},
        INBOX: {"MX": [f"10 mx.{INBOX}"]},
        f"mx.{INBOX}": {"A": [inbox]},
        "1.0.0.127.in-addr.arpa": {"PTR": [f"mx.{SENDER}"]},
    }


def key_records(config: Path) -> Table:
    """Give the records of the keys that the gateway signs with."""
    loaded = load(config)
    keys = load_keys(loaded.dkim.keys).by_domain.values()
    return {key.name: {"TXT": [public_record(key)]} for some in keys for key in some}


def write_configuration(folder: Path, ports: Ports) -> Path:
    """Write the gateway's configuration below `folder`; give its file."""
    home = folder / "gateway"
    forwarder("init", "--domain", SERVED, "--to", f"you@{INBOX}", "--dir", str(home))
    rules = folder / "rules"
    rules.mkdir(parents=True)
    (rules / "demo.rules").write_text(_RULES, encoding="utf-8")
    run = folder / "run"
    run.mkdir(mode=0o700)
    path = home / "forwarder.toml"
    path.write_text(as_text(_on_loopback(load(path), rules, run, ports)), encoding="utf-8")
    return path


def _on_loopback(config: Config, rules: Path, run: Path, ports: Ports) -> Config:
    change = msgspec.structs.replace
    return change(
        config,
        hostname=f"mx.{SERVED}",
        rules=rules,
        run_dir=run,
        workers=1,
        listen=change(config.listen, smtp=(Endpoint("127.0.0.1", ports.gateway),), http=None),
        delivery=change(config.delivery, port=ports.inbox),
        dns=change(config.dns, nameservers=(Endpoint("127.0.0.1", ports.dns),)),
        log=change(config.log, format=LogFormat.TEXT),
    )


def command(config: Path) -> str:
    """Give the `forwarder` command for that configuration, ready for a shell."""
    program = Path(sys.executable).with_name("forwarder")
    words = [str(program)] if program.exists() else [sys.executable, "-m", "forwarder"]
    return f"FORWARDER_CONFIG={shlex.quote(str(config))} {shlex.join(words)}"
