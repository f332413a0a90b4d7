"""A real OpenDMARC as a milter: refuses what a Postfix receives and what fails the policy of its author's domain.

    OpenDmarc(world, "mx.receiver.test", 8893)

It goes by the Authentication-Results of the OpenDKIM in front of it, of the same name, and looks at SPF by itself. It
needs a namespace world, since it asks for names at port 53 alone.
"""

import functools

from tests.lab.process import Process
from tests.lab.world import World, missing, namespace_refusal

_LOCAL = "127.0.0.1"


@functools.cache
def why_not() -> str:
    """Say why OpenDMARC cannot run here; "" if it can."""
    return namespace_refusal() or missing(["opendmarc"])


class OpenDmarc(Process):
    """One milter; `name` is the authserv-id that it believes and writes."""

    def __init__(self, world: World, name: str, port: int) -> None:
        super().__init__(world, world.folder / f"opendmarc-{name}")
        self._port = port
        lines = {
            "Socket": f"inet:{port}@{_LOCAL}",
            "AuthservID": name,
            "TrustedAuthservIDs": name,
            "RejectFailures": "true",
            "SPFIgnoreResults": "true",
            "SPFSelfValidate": "true",
            "PublicSuffixList": "/usr/share/publicsuffix/effective_tld_names.dat",
            "Syslog": "false",
        }
        self._configuration = self.folder / "opendmarc.conf"
        self._configuration.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def start(self) -> None:
        """Run it until it listens."""
        self.spawn(["/usr/sbin/opendmarc", "-f", "-c", str(self._configuration)])
        self.wait_listening(self._port, _LOCAL)

    def end(self) -> int:
        """Kill it: it has nothing to keep."""
        assert self.process is not None
        self.process.kill()
        return super().end()
