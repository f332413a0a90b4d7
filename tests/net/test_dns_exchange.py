"""How name servers are written."""

import pytest

from forwarder.net.dns_exchange import NameServer, parse_nameserver


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("192.0.2.53", NameServer("192.0.2.53", 53)),
        ("127.0.0.1:5353", NameServer("127.0.0.1", 5353)),
        ("2001:DB8::53", NameServer("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", NameServer("2001:db8::53", 5353)),
        ("[2001:db8::53]", NameServer("2001:db8::53", 53)),
    ],
)
def test_name_servers_are_addresses(text: str, server: NameServer) -> None:
    assert parse_nameserver(text) == server


@pytest.mark.parametrize("text", ["", "ns.example", "192.0.2.53:", "192.0.2.53:0", "192.0.2.53:99999", "1.2.3", "[::1"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is written as address"):
        parse_nameserver(text)
