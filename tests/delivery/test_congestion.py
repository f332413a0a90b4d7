"""Which words speak of connections at once, and which of a rate."""

import pytest

from forwarder.delivery.congestion import is_of_connections, throttles
from forwarder.model.outcome import Outcome, Verdict
from forwarder.model.reply import Reply


@pytest.mark.parametrize(
    ("said", "of_connections"),
    [
        ("Error: too many connections from 192.0.2.1", True),
        ("Too many concurrent SMTP connections; please try again later", True),
        ("Too many sessions", True),
        ("Error: Connection rate limit exceeded", False),
        ("Too many connections, slow down", False),
        ("Too many connections in the last minute", False),
        ("Too many connections per hour", False),
        ("Too many messages", False),
        ("you are sending too fast", False),
    ],
)
def test_connections_are_not_a_rate(said: str, of_connections: bool) -> None:
    outcome = Outcome(Verdict.DEFERRED, Reply(421, "4.4.5", said), remote=True)
    assert throttles(outcome)
    assert is_of_connections(outcome) is of_connections
