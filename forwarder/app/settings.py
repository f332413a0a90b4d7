"""What the configuration means for each part: sessions, listener, courier, checks. Nothing here does anything yet."""

import os
from collections.abc import Callable

from forwarder.config import Config, DeliveryMode, Unauthenticated
from forwarder.delivery.intervals import Intervals
from forwarder.delivery.providers import PacingSettings
from forwarder.delivery.runner import RunnerSettings
from forwarder.delivery.settings import CourierSettings, IpPreference, Limits, Timeouts
from forwarder.delivery.settlement import SettlementSettings
from forwarder.listener.limits import ListenerLimits
from forwarder.model.address import Address
from forwarder.model.destination import Destination
from forwarder.model.message import Outgoing
from forwarder.model.reply import Reply
from forwarder.net.dns_exchange import NameServer
from forwarder.net.resolver import DnsResolver, system_nameservers
from forwarder.policy.content import ContentLimits
from forwarder.policy.demands import Author, Demand, Demands
from forwarder.policy.dmarc import Enforcement
from forwarder.policy.rewriting import Otherwise, Rewriting, Wishes
from forwarder.ports import Clock
from forwarder.session.examination import Checks
from forwarder.session.gateway import Settings
from forwarder.smtp.client import TlsUse
from forwarder.spool.room import SpoolSettings


def worker_count(config: Config) -> int:
    """Give the number of workers; 0 stands for one per core that we may use."""
    return config.workers or len(os.sched_getaffinity(0))


def session_settings(config: Config) -> Settings:
    """Say what the configuration means for sessions."""
    return Settings(
        hostname=config.hostname,
        postmaster=config.postmaster,
        message_size=config.limits.message_size,
        recipients=config.limits.recipients,
        cutthrough_deadline=config.delivery.cutthrough_deadline,
        content=content_limits(config),
        checks=checks_of(config),
        rewriting=Wishes(Rewriting(config.rewrite.author.value), Otherwise(config.rewrite.otherwise.value)),
        queue_first=config.delivery.mode is DeliveryMode.QUEUE,
    )


def content_limits(config: Config) -> ContentLimits:
    """Say what a message must be like."""
    message, limits = config.message, config.limits
    demands = Demands(
        Author(message.author.value),
        Demand(message.date.value),
        Demand(message.message_id.value),
        message.singletons,
    )
    return ContentLimits(limits.header_size, limits.hops, limits.header_fields, limits.field_size, demands)


def checks_of(config: Config) -> Checks:
    """Say what the section `authentication` asks for."""
    authentication = config.authentication
    return Checks(
        spf=authentication.spf,
        dkim=authentication.dkim,
        arc=authentication.arc,
        dmarc=Enforcement(authentication.dmarc.value),
        trusted_sealers=frozenset(authentication.trusted_arc_sealers),
        proof_required=authentication.unauthenticated is Unauthenticated.REJECT,
    )


def listener_limits(config: Config) -> ListenerLimits:
    """Say how far a client may go."""
    limits = config.limits
    return ListenerLimits(
        connections=limits.connections,
        connections_per_client=limits.connections_per_client,
        banner_delay=limits.greeting_delay,
        command_timeout=limits.command_timeout,
        data_timeout=limits.data_timeout,
        session_time=limits.session_timeout,
        data_rate=limits.data_rate_minimum,
        line_length=limits.line_length,
        errors=limits.errors,
        idle_commands=limits.commands_without_progress,
    )


def courier_settings(config: Config, own: frozenset[tuple[str, int]]) -> CourierSettings:
    """Say what the configuration means for handing mail on; `own` are the addresses and ports that lead to us."""
    delivery = config.delivery
    return CourierSettings(
        ehlo_name=config.hostname,
        port=delivery.port,
        tls=TlsUse(delivery.tls.value),
        source_addresses=delivery.source_addresses,
        ip=IpPreference(delivery.ip.value),
        routes=delivery.routes,
        own_addresses=own,
        timeouts=Timeouts(
            connect=delivery.connect_timeout,
            greeting=delivery.greeting_timeout,
            command=delivery.command_timeout,
            data=delivery.data_timeout,
            content=delivery.block_timeout,
            dot=delivery.dot_timeout,
        ),
        limits=Limits(
            per_destination=delivery.connections_per_destination,
            messages=delivery.messages_per_connection,
            idle=delivery.idle_timeout,
        ),
    )


def pacing_settings(config: Config) -> PacingSettings:
    """Say how much a provider gets at once."""
    return PacingSettings(per_destination=config.delivery.connections_per_destination)


def spool_settings(config: Config) -> SpoolSettings:
    """Say how much room is kept free."""
    return SpoolSettings(minimum_free=config.spool.minimum_free)


def runner_settings(config: Config, refusal: Callable[[], Reply | None]) -> RunnerSettings:
    """Say what the delivery loop goes by; `refusal` is the spool's."""
    return RunnerSettings(config.postmaster, refusal=refusal)


def settlement_settings(
    config: Config,
    where: Callable[[Address], tuple[Destination, ...]],
    prepare: Callable[[Outgoing], Outgoing],
) -> SettlementSettings:
    """Say how long is tried and who is told; `where` says where an address leads, `prepare` signs what we write."""
    delivery = config.delivery
    return SettlementSettings(
        hostname=config.hostname,
        where=where,
        intervals=Intervals(seconds=delivery.retry, expire=delivery.expire),
        delay_after=delivery.delay_notice,
        prepare=prepare,
    )


def resolver_of(config: Config, clock: Clock) -> DnsResolver:
    """Give a resolver that asks the name servers of the configuration, or those of the system."""
    nameservers = tuple(NameServer(one.host, one.port) for one in config.dns.nameservers)
    return DnsResolver(nameservers or system_nameservers(), clock, timeout=config.dns.timeout)
