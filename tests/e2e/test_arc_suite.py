"""The third-party ARC suite's 171 validation cases through the real gateway, with their keys in real DNS.

What the next hop reads in Authentication-Results is what counts; the message itself must arrive as it was sent. Cases
with the same keys share a gateway.
"""

from itertools import groupby

import pytest

from forwarder.auth.arc.verify import ArcStatus
from tests.auth.arc.suite import Case, cases
from tests.lab.client import Client
from tests.lab.findings import findings
from tests.lab.gateway import Gateway, ours_and_original
from tests.lab.hop import Hop
from tests.lab.world import loopback_world

RULES = "[forward.test]\nme -> inbox@hop.test\n"
ZONES = 3

Records = tuple[tuple[str, str], ...]


def _records(case: Case) -> Records:
    return tuple(sorted((name, text) for (name, _), texts in case.zone.items() for text in texts))


def zones() -> list[tuple[Records, list[Case]]]:
    """Give the cases by what is published for them."""
    return [(records, list(group)) for records, group in groupby(sorted(cases(), key=_records), _records)]


def test_the_suite_is_complete() -> None:
    assert [len(group) for _, group in zones()] == [35, 133, 3]


@pytest.mark.parametrize("number", range(ZONES))
def test_cases(number: int) -> None:
    records, group = zones()[number]
    with loopback_world() as world:
        gate, hop = world.host("mx.forward.test"), world.host("hop.test")
        sender = world.host("mx.sender.test", "sender.test")
        for name, text in records:
            world.dns.add(name, "TXT", text)
        with Hop(world, hop) as taker, Gateway(world, gate, RULES) as gateway:
            wrong = {}
            with Client(world, gate, sender) as client:
                client.ehlo()
                for case in group:
                    answer = client.send("a@sender.test", "me@forward.test", case.message)
                    assert answer.code == 250, (case.name, answer)
                    if (found := _found(taker, case)) != case.status.value:
                        wrong[case.name] = (found, case.status.value)
            assert wrong == {}
            told = [str(event["arc"]) for event in gateway.wait_event("authenticated", len(group))]
            assert [text.split(" ")[0] for text in told] == [case.status.value for case in group]


def _found(taker: Hop, case: Case) -> str:
    """Give the result that the next hop reads."""
    received = taker.received.pop()
    assert taker.received == []
    ours_and_original(received.octets, case.message)
    clause = findings(received.octets).one("arc")
    assert clause.comment or case.status is ArcStatus.PASS
    if clause.result != "fail":
        assert ("header.oldest-pass" in clause.properties) == (clause.result == "pass")  # RFC 8617 5.2
    return clause.result
