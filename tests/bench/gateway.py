"""The gateway under measurement: as `forwarder init` writes it, with limits wide enough for a load, and its world.

    async with our_gateway(folder, sink_port, Wishes(queue=True, workers=2)) as (child, address): ...

With `checks` the sender's SPF, DKIM and DMARC pass: `signed_letter` gives a message and the record of its key. Without
them nothing is asked of DNS about the sender. With `sign` every copy is signed with RSA-2048 and sealed.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dkim
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from deploy.demo.gateway import gateway, listening_socket
from deploy.demo.letter import compose
from deploy.demo.setting import INBOX, SENDER, SERVED, Ports, table, write_configuration
from deploy.demo.zone import Table, Zone
from forwarder.config import Config, as_text, load
from forwarder.config.schema import DeliveryMode, DmarcMode
from tests.bench.load import message

HOST = "127.0.0.1"
SINK_HOST = "127.0.0.2"
TO = f"you@{SERVED}"
_SELECTOR = "load"


@dataclass(frozen=True, slots=True)
class Wishes:
    """How the gateway is to work. `connections` is how many it may have to the sink."""

    queue: bool = False
    checks: bool = False
    sign: bool = False
    workers: int = 1
    connections: int = 20


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed message, and what DNS is to say of its sender."""

    octets: bytes
    records: Table


def signed_letter(size: int) -> Letter:
    """Write a message of about `size` octets, signed with RSA-2048 as most senders sign."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    octets = message(0, size)
    signature: bytes = dkim.sign(
        octets, _SELECTOR.encode(), SENDER.encode(), private, canonicalize=(b"relaxed", b"relaxed")
    )
    records = {
        f"{_SELECTOR}._domainkey.{SENDER}": {"TXT": ["v=DKIM1; k=rsa; p=" + base64.b64encode(public).decode()]},
        f"_dmarc.{SENDER}": {"TXT": ["v=DMARC1; p=reject"]},
    }
    return Letter(signature + octets, records)


@asynccontextmanager
async def our_gateway(
    folder: Path, sink: int, wishes: Wishes, records: Table | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, tuple[str, int]]]:
    """Run it below `folder`; give the process and where it listens."""
    zone = Zone({**names(), **(records or {})})
    with zone.in_thread(HOST) as (_, dns), listening_socket(HOST) as listening:
        address = (HOST, listening.getsockname()[1])
        path = await asyncio.to_thread(configuration, folder, Ports(dns, sink, address[1]), wishes)
        async with gateway(path, listening, lambda line: None, folder / "log") as child:
            yield child, address


def names() -> Table:
    """Give what DNS says of everybody."""
    return table(compose(SENDER, TO, datetime.now(UTC)), HOST, SINK_HOST)


def configuration(folder: Path, ports: Ports, wishes: Wishes) -> Path:
    """Write the configuration; give its file."""
    path = write_configuration(folder, ports)
    path.write_text(as_text(_wished(load(path), wishes)))
    return path


def _wished(config: Config, wishes: Wishes) -> Config:
    change = msgspec.structs.replace
    mode = DeliveryMode.QUEUE if wishes.queue else DeliveryMode.CUTTHROUGH
    dmarc = config.authentication.dmarc if wishes.checks else DmarcMode.OFF
    checks = wishes.checks
    return change(
        config,
        workers=wishes.workers,
        limits=change(config.limits, connections_per_client=1000, greeting_delay=0.0),
        delivery=change(config.delivery, mode=mode, connections_per_destination=wishes.connections),
        authentication=change(config.authentication, spf=checks, dkim=checks, arc=checks, dmarc=dmarc),
        dkim=change(config.dkim, sign=wishes.sign),
        arc=change(config.arc, seal=wishes.sign and checks),  # a seal says what the checks found
    )


__all__ = ["HOST", "INBOX", "SINK_HOST", "TO", "Letter", "Wishes", "configuration", "names", "our_gateway"]
