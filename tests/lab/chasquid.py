"""A real chasquid as a second receiver, with its own configuration, users and data.

It needs a namespace world, since it asks the name servers of /etc/resolv.conf. Accepted mail goes to one Maildir per
user through a delivery program of the lab; like every such program it gets the message with chasquid's own headers in
front, its line ends as chasquid hands them over.
"""

import functools
import os
import shutil
import subprocess
from collections.abc import Sequence

from tests.lab.maildir import Maildir
from tests.lab.process import Process
from tests.lab.world import Host, World, missing, namespace_refusal

_CONFIGURATION = """\
hostname: "{host.name}"
smtp_address: "{listen}"
data_dir: "{folder}/data"
mail_log_path: "{folder}/log"
mail_delivery_agent_bin: "{folder}/deliver"
mail_delivery_agent_args: "%to%"
"""

_DELIVER = """\
#!/bin/sh -e
mkdir -p "{folder}/mail/$1/new"
cat > "{folder}/mail/$1/$$"
mv "{folder}/mail/$1/$$" "{folder}/mail/$1/new/$$"
"""


@functools.cache
def why_not() -> str:
    """Say why chasquid cannot run here; "" if it can."""
    return namespace_refusal() or missing(["chasquid", "chasquid-util", "openssl"])


class Chasquid(Process):
    """One instance for `mailboxes`; mail to other users of their domains is refused."""

    def __init__(self, world: World, host: Host, mailboxes: Sequence[str]) -> None:
        super().__init__(world, world.folder / f"chasquid-{host.name}")
        self.host = host
        listen = f"[{host.address}]:{host.port}" if host.is_ipv6 else f"{host.address}:{host.port}"
        config = self.folder / "config"
        certificates = config / "certs" / host.name
        certificates.mkdir(parents=True)
        _certify(host.name, str(certificates))
        (config / "chasquid.conf").write_text(_CONFIGURATION.format(host=host, listen=listen, folder=self.folder))
        deliver = self.folder / "deliver"
        deliver.write_text(_DELIVER.format(folder=self.folder))
        deliver.chmod(0o755)
        for mailbox in mailboxes:
            (config / "domains" / mailbox.partition("@")[2]).mkdir(parents=True, exist_ok=True)
            words = [_find("chasquid-util"), f"--configdir={config}", "user-add", mailbox, "--password=secret"]
            subprocess.run(words, check=True, capture_output=True)

    def start(self) -> None:
        """Run it until it listens."""
        self.spawn([_find("chasquid"), "-config_dir", str(self.folder / "config")])
        self.wait_listening(self.host.port, self.host.address)

    def mailbox(self, address: str) -> Maildir:
        """Give the Maildir of an address."""
        return Maildir(self.folder / "mail" / address)


def _find(program: str) -> str:
    return shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") or program


def _certify(name: str, folder: str) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    words += ["-keyout", f"{folder}/privkey.pem", "-out", f"{folder}/fullchain.pem"]
    subprocess.run(words, check=True, capture_output=True)
