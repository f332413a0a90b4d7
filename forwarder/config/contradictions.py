"""Keys that are right each by itself and wrong together.

Each check is a function of the configuration that gives what was expected, or None; `CHECKS` says which key is to
blame and which others take part: a check is left out while one of them is wrong by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from forwarder.config.schema import Config, DmarcMode, IpChoice, Otherwise, Rewriting, Unauthenticated
from forwarder.config.units import duration_text, size_text


@dataclass(frozen=True, slots=True)
class Check:
    """`key` is the one to change; `others` take part; `expected` gives the words, None when all is well."""

    key: str
    others: tuple[str, ...]
    expected: Callable[[Config], str | None]


def _certificate(config: Config) -> str | None:
    if config.tls.key is not None and config.tls.certificate is None:
        return "expected the file of the certificate that tls.key belongs to"
    return None


def _key(config: Config) -> str | None:
    if config.tls.certificate is not None and config.tls.key is None:
        return "expected the file of the private key of tls.certificate"
    return None


def _http(config: Config) -> str | None:
    if config.listen.http is not None and config.listen.http.port and config.listen.http in config.listen.smtp:
        return "expected another address than those of listen.smtp"
    return None


def _per_client(config: Config) -> str | None:
    if config.limits.connections_per_client > config.limits.connections:
        return f"expected at most limits.connections ({config.limits.connections})"
    return None


def _command_timeout(config: Config) -> str | None:
    return _within_session(config, config.limits.command_timeout)


def _data_timeout(config: Config) -> str | None:
    return _within_session(config, config.limits.data_timeout)


def _within_session(config: Config, seconds: float) -> str | None:
    if seconds > config.limits.session_timeout:
        return f"expected at most limits.session_timeout ({duration_text(config.limits.session_timeout)})"
    return None


def _header_size(config: Config) -> str | None:
    if config.limits.header_size > config.limits.message_size:
        return f"expected at most limits.message_size ({size_text(config.limits.message_size)})"
    return None


def _dmarc(config: Config) -> str | None:
    checks = config.authentication
    if checks.dmarc is not DmarcMode.OFF and not (checks.spf or checks.dkim):
        return 'expected "off", as authentication.spf and authentication.dkim are both false'
    return None


def _unauthenticated(config: Config) -> str | None:
    checks = config.authentication
    if checks.unauthenticated is Unauthenticated.REJECT and not (checks.spf or checks.dkim):
        return (
            'expected "accept", as with authentication.spf and authentication.dkim both false all mail would be refused'
        )
    return None


def _field_size(config: Config) -> str | None:
    if config.limits.field_size > config.limits.header_size:
        return f"expected at most limits.header_size ({size_text(config.limits.header_size)})"
    return None


def _rewriting(config: Config) -> str | None:
    if config.rewrite.author is not Rewriting.ALWAYS:
        return None
    if config.authentication.dmarc is DmarcMode.OFF:
        return 'expected "when-needed" or "never", as nothing is foreseen with authentication.dmarc "off"'
    if not config.dkim.sign:
        return 'expected "when-needed" or "never", as a rewritten From is worth nothing with dkim.sign false'
    return None


def _otherwise(config: Config) -> str | None:
    if config.rewrite.otherwise is Otherwise.REJECT and config.authentication.dmarc is DmarcMode.OFF:
        return 'expected "forward", as nothing is foreseen with authentication.dmarc "off"'
    return None


def _postmaster(config: Config) -> str | None:
    if config.postmaster.domain == (config.srs.domain or config.hostname):
        return "expected an inbox elsewhere: mail for the domain of srs.domain comes back here"
    return None


def _max_age(config: Config) -> str | None:
    if config.srs.max_age < config.delivery.expire:
        expire = duration_text(config.delivery.expire)
        return f"expected at least delivery.expire ({expire}): bounces may come that late"
    return None


def _expire(config: Config) -> str | None:
    if config.delivery.expire < config.delivery.cutthrough_deadline:
        return f"expected at least delivery.cutthrough_deadline ({duration_text(config.delivery.cutthrough_deadline)})"
    return None


def _source_addresses(config: Config) -> str | None:
    only = {IpChoice.IPV4: 4, IpChoice.IPV6: 6}.get(config.delivery.ip)
    if only and any(ip_address(source).version != only for source in config.delivery.source_addresses):
        return f'expected IPv{only} addresses alone, as delivery.ip is "{config.delivery.ip.value}"'
    return None


CHECKS = (
    Check("tls.certificate", ("tls.key",), _certificate),
    Check("tls.key", ("tls.certificate",), _key),
    Check("listen.http", ("listen.smtp",), _http),
    Check("limits.connections_per_client", ("limits.connections",), _per_client),
    Check("limits.command_timeout", ("limits.session_timeout",), _command_timeout),
    Check("limits.data_timeout", ("limits.session_timeout",), _data_timeout),
    Check("limits.header_size", ("limits.message_size",), _header_size),
    Check("limits.field_size", ("limits.header_size",), _field_size),
    Check("authentication.dmarc", ("authentication.spf", "authentication.dkim"), _dmarc),
    Check("authentication.unauthenticated", ("authentication.spf", "authentication.dkim"), _unauthenticated),
    Check("rewrite.from", ("authentication.dmarc", "dkim.sign"), _rewriting),
    Check("rewrite.otherwise", ("authentication.dmarc",), _otherwise),
    Check("postmaster", ("srs.domain", "hostname"), _postmaster),
    Check("srs.max_age", ("delivery.expire",), _max_age),
    Check("delivery.expire", ("delivery.cutthrough_deadline",), _expire),
    Check("delivery.source_addresses", ("delivery.ip",), _source_addresses),
)
