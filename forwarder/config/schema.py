"""Every key of the configuration: its name, its kind with bounds, its default (section 6 of the design).

A section is a frozen struct; the kind of a key stands in its annotation. A key without a default must be given. A key
that Python could not name has a field of another name, with the key as its `encode_name`.
Durations are seconds, sizes octets; paths are absolute once `config.load` gave them. `deploy/forwarder.toml` explains
the same keys to those who run the gateway; a test holds the two together.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, get_args

import msgspec

from forwarder.config.hosts import (
    Domain,
    Endpoint,
    Listen,
    Mailbox,
    Nameserver,
    Relay,
    Routes,
    Smarthost,
    SourceAddress,
)
from forwarder.config.kinds import Choice, Duration, File, Kind, Many, Size, Switch, Whole
from forwarder.model.address import Address
from forwarder.model.destination import Hop


class DmarcMode(Enum):
    """What DMARC's verdict does to a message."""

    ENFORCE = "enforce"
    REPORT = "report"
    OFF = "off"


class Unauthenticated(Enum):
    """What becomes of mail of which nothing is authenticated."""

    ACCEPT = "accept"
    REJECT = "reject"


class AuthorDemand(Enum):
    """What is demanded of From."""

    ANY = "any"
    UNAMBIGUOUS = "not-several"
    FIELD = "one-field"
    ADDRESS = "one-address"


class Demand(Enum):
    """What is demanded of another header field."""

    ANY = "any"
    PRESENT = "present"
    VALID = "valid"


class Rewriting(Enum):
    """When From is rewritten."""

    NEVER = "never"
    WHEN_NEEDED = "when-needed"
    ALWAYS = "always"


class Otherwise(Enum):
    """What becomes of mail that would fail DMARC behind us, where From is not rewritten."""

    FORWARD = "forward"
    REJECT = "reject"


class DeliveryMode(Enum):
    """When the sender is answered."""

    CUTTHROUGH = "cutthrough"
    QUEUE = "queue"


class IpChoice(Enum):
    """Which addresses of a next hop are tried, and in what order."""

    PREFER_IPV4 = "prefer-ipv4"
    PREFER_IPV6 = "prefer-ipv6"
    IPV4 = "ipv4"
    IPV6 = "ipv6"


class TlsPolicy(Enum):
    """Whether mail may go out in clear text."""

    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"


class LogFormat(Enum):
    """How events are written; AUTO is the journal under systemd and text elsewhere."""

    AUTO = "auto"
    JOURNAL = "journal"
    JSON = "json"
    TEXT = "text"


class LogLevel(Enum):
    """The least important event that is written."""

    DEBUG = "debug"
    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the configuration."""


class Listening(Section, frozen=True, kw_only=True):
    """`[listen]`: where connections come in. `http` None: not at all."""

    smtp: Annotated[tuple[Endpoint, ...], Many(Listen(), at_least=1)] = (Endpoint("::", 25), Endpoint("0.0.0.0", 25))  # noqa: S104 - the MX of a domain listens to the world
    http: Annotated[Endpoint | None, Listen(optional=True)] = Endpoint("127.0.0.1", 8025)
    proxy_protocol: Annotated[bool, Switch()] = False


class Certificate(Section, frozen=True, kw_only=True):
    """`[tls]`: both None: self-signed in `state_dir`."""

    certificate: Annotated[Path | None, File(optional=True)] = None
    key: Annotated[Path | None, File(optional=True, secret=True)] = None


class Limits(Section, frozen=True, kw_only=True):
    """`[limits]`: what one client may ask of the listener."""

    message_size: Annotated[int, Size("64KiB", "1GB")] = 50_000_000  # RFC 5321 4.5.3.1.7: at least 64K octets
    recipients: Annotated[int, Whole(100, 10_000)] = 100  # RFC 5321 4.5.3.1.8: at least 100
    connections: Annotated[int, Whole(1, 100_000)] = 1000
    connections_per_client: Annotated[int, Whole(1, 100_000)] = 20
    command_timeout: Annotated[float, Duration("1s", "1h")] = 300.0  # RFC 5321 4.5.3.2.7: at least 5 minutes
    data_timeout: Annotated[float, Duration("1s", "1h")] = 180.0  # RFC 5321 4.5.3.2.5
    session_timeout: Annotated[float, Duration("1s", "1d")] = 7200.0
    data_rate_minimum: Annotated[int, Size("0B", "1MB", "/s")] = 100
    errors: Annotated[int, Whole(1, 10_000)] = 20
    commands_without_progress: Annotated[int, Whole(10, 10_000)] = 100
    header_size: Annotated[int, Size("16kB", "64MB")] = 500_000
    header_fields: Annotated[int, Whole(100, 10_000)] = 5000
    field_size: Annotated[int, Size("0B", "64MB")] = 0
    line_length: Annotated[int, Whole(998, 1_000_000_000, or_zero="unlimited")] = 0  # RFC 5322 2.1.1
    hops: Annotated[int, Whole(5, 1000)] = 50
    greeting_delay: Annotated[float, Duration("0s", "30s")] = 0.01


class Authentication(Section, frozen=True, kw_only=True):
    """`[authentication]`: what is checked of who sent a message."""

    spf: Annotated[bool, Switch()] = True
    dkim: Annotated[bool, Switch()] = True
    dmarc: Annotated[DmarcMode, Choice(DmarcMode)] = DmarcMode.ENFORCE
    arc: Annotated[bool, Switch()] = True
    trusted_arc_sealers: Annotated[tuple[str, ...], Many(Domain("google.com"))] = ()
    unauthenticated: Annotated[Unauthenticated, Choice(Unauthenticated)] = Unauthenticated.ACCEPT


class Message(Section, frozen=True, kw_only=True):
    """`[message]`: what a header section must be like. `author` is the key `from`."""

    author: Annotated[AuthorDemand, Choice(AuthorDemand)] = msgspec.field(name="from", default=AuthorDemand.UNAMBIGUOUS)
    singletons: Annotated[bool, Switch()] = False
    date: Annotated[Demand, Choice(Demand)] = Demand.ANY
    message_id: Annotated[Demand, Choice(Demand)] = Demand.ANY


class AuthorRewriting(Section, frozen=True, kw_only=True):
    """`[rewrite]`: mail that would fail DMARC behind us. `author` is the key `from`."""

    author: Annotated[Rewriting, Choice(Rewriting)] = msgspec.field(name="from", default=Rewriting.WHEN_NEEDED)
    otherwise: Annotated[Otherwise, Choice(Otherwise)] = Otherwise.FORWARD


class SenderRewriting(Section, frozen=True, kw_only=True):
    """`[srs]`: `domain` is never "" once loaded: without one it is the host name."""

    domain: Annotated[str, Domain("fwd.example.org", or_empty="the host name")] = ""
    secrets: Annotated[Path, File(secret=True)] = Path("srs.secrets")
    # Whole days, as the stamp of SRS counts them: it comes round after 1024.
    max_age: Annotated[float, Duration("1d", "1000d", days=True)] = 1_814_400.0


class Signing(Section, frozen=True, kw_only=True):
    """`[dkim]`."""

    keys: Annotated[Path, File(secret=True)] = Path("keys")
    sign: Annotated[bool, Switch()] = True


class Sealing(Section, frozen=True, kw_only=True):
    """`[arc]`."""

    seal: Annotated[bool, Switch()] = True


class Delivery(Section, frozen=True, kw_only=True):
    """`[delivery]`: how mail goes out. The time-outs are those of RFC 5321 4.5.3.2."""

    mode: Annotated[DeliveryMode, Choice(DeliveryMode)] = DeliveryMode.CUTTHROUGH
    cutthrough_deadline: Annotated[
        float, Duration("1s", "9m", because="senders wait 10m for the reply to the dot (RFC 5321 4.5.3.2.6)")
    ] = 25.0
    expire: Annotated[float, Duration("1m", "30d")] = 432_000.0
    # RFC 5321 4.5.4.1: half an hour at least after the first failures, and never for good; the last one repeats.
    retry: Annotated[tuple[float, ...], Many(Duration("1s", "1d"), at_least=1)] = (60.0, 300.0, 900.0, 1800.0, 3600.0)
    delay_notice: Annotated[float, Duration("0s", "5d")] = 0.0
    port: Annotated[int, Whole(1, 65_535)] = 25
    source_addresses: Annotated[tuple[str, ...], Many(SourceAddress())] = ()
    ip: Annotated[IpChoice, Choice(IpChoice)] = IpChoice.PREFER_IPV4
    tls: Annotated[TlsPolicy, Choice(TlsPolicy)] = TlsPolicy.OPPORTUNISTIC
    smarthost: Annotated[Smarthost | None, Relay()] = None
    smarthost_password: Annotated[Path, File(secret=True)] = Path("smarthost.password")
    connections_per_destination: Annotated[int, Whole(1, 1000)] = 5
    messages_per_connection: Annotated[int, Whole(1, 10_000)] = 50
    connect_timeout: Annotated[float, Duration("1s", "10m")] = 10.0
    greeting_timeout: Annotated[float, Duration("1s", "30m")] = 300.0  # 4.5.3.2.1
    command_timeout: Annotated[float, Duration("1s", "30m")] = 300.0  # 4.5.3.2.2, 4.5.3.2.3
    data_timeout: Annotated[float, Duration("1s", "30m")] = 120.0  # 4.5.3.2.4
    block_timeout: Annotated[float, Duration("1s", "30m")] = 180.0  # 4.5.3.2.5
    dot_timeout: Annotated[float, Duration("1s", "1h")] = 600.0  # 4.5.3.2.6
    idle_timeout: Annotated[float, Duration("0s", "5m")] = 10.0
    routes: Annotated[Mapping[str, Hop], Routes()] = msgspec.field(default_factory=dict)


class Spool(Section, frozen=True, kw_only=True):
    """`[spool]`: the messages in our care, in `state_dir`/spool."""

    minimum_free: Annotated[int, Size("1MB", "1000GB")] = 100_000_000


class Dns(Section, frozen=True, kw_only=True):
    """`[dns]`: without nameservers, those of the system."""

    nameservers: Annotated[tuple[Endpoint, ...], Many(Nameserver())] = ()
    timeout: Annotated[float, Duration("100ms", "1m")] = 5.0


class Log(Section, frozen=True, kw_only=True):
    """`[log]`."""

    format: Annotated[LogFormat, Choice(LogFormat)] = LogFormat.AUTO
    level: Annotated[LogLevel, Choice(LogLevel)] = LogLevel.INFO


class Config(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    hostname: Annotated[str, Domain("mx1.example.org", host=True)]
    postmaster: Annotated[Address, Mailbox()]
    rules: Annotated[Path, File()]
    state_dir: Annotated[Path, File(absolute=True)] = Path("/var/lib/forwarder")
    run_dir: Annotated[Path, File(absolute=True)] = Path("/run/forwarder")
    workers: Annotated[int, Whole(0, 1024)] = 0
    listen: Listening = Listening()
    tls: Certificate = Certificate()
    limits: Limits = Limits()
    message: Message = Message()
    authentication: Authentication = Authentication()
    rewrite: AuthorRewriting = AuthorRewriting()
    srs: SenderRewriting = SenderRewriting()
    dkim: Signing = Signing()
    arc: Sealing = Sealing()
    delivery: Delivery = Delivery()
    spool: Spool = Spool()
    dns: Dns = Dns()
    log: Log = Log()


def kinds(section: type[Section]) -> Iterator[tuple[msgspec.structs.FieldInfo, Kind]]:
    """Give the keys of a section, each with its kind, in their order; tables within it are left out."""
    for field in msgspec.structs.fields(section):
        if isinstance(kind := (get_args(field.type) or (None,))[-1], Kind):
            yield field, kind


def sections(section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
    """Give the tables within a section, in their order."""
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            yield field.name, field.type
