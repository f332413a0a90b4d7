"""Which addresses are our own."""

from pathlib import Path

from forwarder.ops.addresses import own_addresses

TRIE = """Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
INET6 = "20010db8000000000000000000000002 02 40 00 80     eth0\n"


def test_wild_cards_are_spelt_out(tmp_path: Path) -> None:
    (tmp_path / "4").write_text(TRIE)
    (tmp_path / "6").write_text(INET6)
    found = own_addresses([("0.0.0.0", 25), ("::", 26)], tmp_path / "4", tmp_path / "6")
    assert found == {("127.0.0.1", 25), ("192.0.2.2", 25), ("::1", 26), ("2001:db8::2", 26)}


def test_an_address_is_itself(tmp_path: Path) -> None:
    assert own_addresses([("127.0.0.9", 2525)]) == {("127.0.0.9", 2525)}


def test_a_system_that_cannot_be_asked_still_has_loopback(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert own_addresses([("0.0.0.0", 25), ("::", 25)], missing, missing) == {("127.0.0.1", 25), ("::1", 25)}
