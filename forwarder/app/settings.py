"""What the configuration means for each part: sessions, listener, courier, checks. Nothing here does anything."""

import os

from forwarder.config import Config, DeliveryMode, Unauthenticated
from forwarder.delivery.settings import CourierSettings, IpPreference, Limits, Timeouts
from forwarder.listener.limits import ListenerLimits
from forwarder.policy.content import ContentLimits
from forwarder.policy.dmarc import Enforcement
from forwarder.session.examination import Checks
from forwarder.session.gateway import Settings
from forwarder.smtp.client import TlsUse


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
        content=ContentLimits(config.limits.header_size, config.limits.hops),
        checks=checks_of(config),
        queue_first=config.delivery.mode is DeliveryMode.QUEUE,
    )


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
