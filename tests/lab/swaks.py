"""swaks, the administrator's SMTP test client: runs it in a world and gives its transcript."""

import functools
import subprocess
from dataclasses import dataclass

from tests.lab.world import Host, World, missing


@functools.cache
def why_not() -> str:
    """Say why swaks cannot run here; "" if it can."""
    return missing(["swaks"])


@functools.cache
def why_no_tls() -> str:
    """Say why swaks cannot use TLS here; "" if it can."""
    if reason := why_not():
        return reason
    done = subprocess.run(["swaks", "--support"], capture_output=True, text=True, check=False)
    return "" if "TLS supported" in done.stdout else "swaks has no TLS (Net::SSLeay)"


@dataclass(frozen=True, slots=True)
class Transcript:
    """How swaks ended (0: the message was taken; 24: all recipients refused; 26: refused after DATA) and what was said.

    In `text` lines that swaks sent begin with " -> ", what it got with "<-  " or "<** " (errors), under TLS with "~".
    """

    status: int
    text: str


def swaks(world: World, host: Host, sender: str, recipient: str, *options: str) -> Transcript:
    """Send one message; `options` are swaks' own."""
    words = ["swaks", "--server", host.address, "--port", str(host.port), "--helo", "client.test"]
    words += ["--from", sender, "--to", recipient, "--timeout", "20", *options]
    done = world.run(*words, timeout=60)
    return Transcript(done.returncode, (done.stdout + done.stderr).decode(errors="replace"))
