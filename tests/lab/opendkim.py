"""A real OpenDKIM as a milter: signs what a Postfix of the lab sends, or checks what one receives.

    OpenDkim(world, "signer", 8891, signing=("sender.test", "lab", private_pem))
    Postfix(world, host, settings=milter_settings(8891))

It needs a namespace world, since it asks for names at port 53 alone.
"""

import functools

from tests.lab.process import Process
from tests.lab.world import World, missing, namespace_refusal

_LOCAL = "127.0.0.1"


@functools.cache
def why_not() -> str:
    """Say why OpenDKIM cannot run here; "" if it can."""
    return namespace_refusal() or missing(["opendkim"])


def milter_settings(port: int) -> dict[str, str]:
    """Give what a Postfix must be told to ask the milter at this port."""
    milter = f"inet:{_LOCAL}:{port}"
    return {"smtpd_milters": milter, "non_smtpd_milters": milter, "milter_default_action": "tempfail"}


class OpenDkim(Process):
    """One milter. `signing` is (domain, selector, private key as PEM); without it, it checks.

    RSA keys of fewer bits than `key_bits` are worth nothing to it.
    """

    def __init__(
        self,
        world: World,
        name: str,
        port: int,
        *,
        signing: tuple[str, str, bytes] | None = None,
        canonical: str = "relaxed/relaxed",
        key_bits: int = 1024,
    ) -> None:
        super().__init__(world, world.folder / f"opendkim-{name}")
        self._port = port
        lines = {
            "Socket": f"inet:{port}@{_LOCAL}",
            "Mode": "s" if signing else "v",
            "AuthservID": name,
            "Syslog": "no",
            "Canonicalization": canonical,
            "Nameservers": world.dns.address.rpartition(":")[0],
            "ResolverConfiguration": str(self.folder / "unbound.conf"),
        }
        if signing:
            domain, selector, private = signing
            key = self.folder / "key.pem"
            key.touch(mode=0o600)
            key.write_bytes(private)
            lines |= {"Domain": domain, "Selector": selector, "KeyFile": str(key)}
            lines["RequireSafeKeys"] = "no"  # it minds that others may write to /tmp
        else:
            lines |= {"AlwaysAddARHeader": "yes", "MinimumKeyBits": str(key_bits)}
        # libunbound knows by itself that nothing is in .test (RFC 6761 6.2), unless told otherwise.
        (self.folder / "unbound.conf").write_text('server:\n local-zone: "test." nodefault\n')
        self._configuration = self.folder / "opendkim.conf"
        self._configuration.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))

    def start(self) -> None:
        """Run it until it listens."""
        self.spawn(["opendkim", "-f", "-x", str(self._configuration)])
        self.wait_listening(self._port, _LOCAL)

    def end(self) -> int:
        """Kill it: it takes five seconds to heed SIGTERM, and has nothing to keep."""
        assert self.process is not None
        self.process.kill()
        return super().end()
