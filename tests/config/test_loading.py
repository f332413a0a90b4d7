"""The configuration as a whole: defaults, the annotated sample, files that are no TOML, anything at all."""

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forwarder.config import (
    MAX_SIZE,
    Config,
    ConfigError,
    Endpoint,
    Smarthost,
    as_text,
    as_tree,
    load,
    parse,
    read,
    tree_text,
)
from forwarder.model.address import Address
from forwarder.model.destination import Hop
from tests.config.test_wrong import KEYS, MINIMAL

SAMPLE = Path(__file__).parents[2] / "deploy" / "forwarder.toml"
RICH = """
hostname = "MX1.Bücher.example."
postmaster = "Me@Gmail.COM"
rules = "rules"
state_dir = "/srv/forwarder"
[listen]
smtp = ["127.0.0.1:2525", "[0:0::1]:2525"]
http = ""
[tls]
certificate = "tls/c.pem"
key = "/etc/k.pem"
[limits]
message_size = "1MiB"
line_length = 998
data_rate_minimum = "1kB/s"
[srs]
max_age = "3w"
[delivery]
source_addresses = ["192.0.2.1", "2001:DB8::1"]
smarthost = "smtp://me%40example.org@[192.0.2.7]"
[delivery.routes]
"GMAIL.com" = "[192.0.2.9]:25"
"bücher.example" = "MX.example.org:2525"
"c.example" = "[2001:db8:0::1]"
[dns]
nameservers = ["127.0.0.1:5353", "192.0.2.1", "[::1]:53", "::2"]
timeout = "250ms"
"""


def test_the_annotated_sample_has_every_key_with_its_default() -> None:
    tree = tomllib.loads(SAMPLE.read_text(encoding="utf-8"))
    config = load(SAMPLE)
    paths = {
        (*table, key)
        for table, keys in [((), tree), *(((name,), value) for name, value in tree.items() if isinstance(value, dict))]
        for key, value in keys.items()
        if table or not isinstance(value, dict)
    }
    assert paths == set(KEYS)
    assert config == read(MINIMAL, "minimal")


def test_every_key_of_the_sample_has_a_comment() -> None:
    blocks = SAMPLE.read_text(encoding="utf-8").split("\n\n")
    for block in blocks:
        keys = [line for line in block.splitlines() if line and not line.startswith(("#", "["))]
        assert not keys or "#" in block or block.startswith("[dkim]"), block


def test_sections_of_the_design_are_the_defaults() -> None:
    config = read(MINIMAL, "minimal")
    assert config.listen.smtp == (Endpoint("::", 25), Endpoint("0.0.0.0", 25))
    assert config.listen.http == Endpoint("127.0.0.1", 8025)
    assert (config.limits.message_size, config.limits.recipients, config.limits.connections) == (50_000_000, 100, 1000)
    assert config.delivery.cutthrough_deadline == 25.0
    assert config.delivery.expire == 5 * 86_400
    assert config.srs.max_age == 21 * 86_400
    assert config.srs.domain == "mx1.example.org"
    assert config.srs.secrets == Path("/var/lib/forwarder/srs.secrets")
    assert config.dkim.keys == Path("/var/lib/forwarder/keys")
    assert config.dns.timeout == 5.0


def test_values_are_canonical() -> None:
    config = parse(RICH, "rich")
    assert config.hostname == config.srs.domain == "mx1.xn--bcher-kva.example"
    assert config.postmaster == Address("Me", "gmail.com")
    assert config.rules == Path("/srv/forwarder/rules")
    assert config.tls.certificate == Path("/srv/forwarder/tls/c.pem")
    assert config.tls.key == Path("/etc/k.pem")
    assert config.listen.smtp == (Endpoint("127.0.0.1", 2525), Endpoint("::1", 2525))
    assert config.listen.http is None
    assert (config.limits.message_size, config.limits.data_rate_minimum) == (1_048_576, 1000)
    assert config.delivery.source_addresses == ("192.0.2.1", "2001:db8::1")
    assert config.delivery.smarthost == Smarthost(Hop("192.0.2.7", 587), "me@example.org")
    assert config.delivery.routes == {
        "gmail.com": Hop("192.0.2.9", 25),
        "xn--bcher-kva.example": Hop("mx.example.org", 2525),
        "c.example": Hop("2001:db8::1"),
    }
    assert config.dns.nameservers == tuple(
        Endpoint(host, port) for host, port in [("127.0.0.1", 5353), ("192.0.2.1", 53), ("::1", 53), ("::2", 53)]
    )
    assert config.dns.timeout == 0.25


def test_a_port_that_the_system_chooses_is_never_the_same() -> None:
    config = read(MINIMAL | {"listen": {"smtp": ["127.0.0.1:0"], "http": "127.0.0.1:0"}}, "f")
    assert config.listen.smtp == (config.listen.http,)


def test_a_configuration_is_frozen() -> None:
    config = parse(RICH, "rich")
    with pytest.raises(AttributeError):
        config.workers = 3  # type: ignore[misc]  # that it cannot be set is the point
    with pytest.raises(AttributeError):
        config.limits.errors = 3  # type: ignore[misc]  # as above


@pytest.mark.parametrize("text", [RICH, SAMPLE.read_text(encoding="utf-8")], ids=["rich", "sample"])
def test_what_is_written_reads_back(text: str) -> None:
    config = parse(text, "given")
    assert parse(as_text(config), "written") == config
    assert read(as_tree(config), "tree") == config


@settings(deadline=None)  # as below
@given(
    st.dictionaries(st.text(max_size=5), st.text() | st.booleans() | st.integers(0) | st.lists(st.text()), max_size=5)
)
def test_any_strings_can_be_written(table: dict[str, Any]) -> None:
    tree: dict[str, Any] = {"first": '\x7f\x00\n"\\', "a table": table}
    assert tomllib.loads(tree_text(tree)) == tree


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("hostname = ", "f:1:12: is not TOML: Invalid value"),
        ('a = "1"\na = "2"', "f:2:8: is not TOML: Cannot overwrite a value"),
        ('\n\na = "1', "f:3:7: is not TOML: Unterminated string"),
        ("\x00", "f:1:1: is not TOML: Invalid statement"),
        ("a = " + "[" * 100_000, "f: is nested too deeply"),
        ("a = 1" + "0" * 5000, "f: has a value that cannot be read"),
    ],
)
def test_what_is_no_toml(text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert caught.value.lines() == [line]
    assert str(caught.value) == line


def test_load_tells_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    absent, latin, large = tmp_path / "absent", tmp_path / "latin", tmp_path / "large"
    latin.write_bytes(b'hostname = "a"\n# caf\xe9\n')
    large.write_bytes(b"#" * (MAX_SIZE + 1))
    for path, expected in [
        (absent, f"{absent}: cannot be read: No such file or directory"),
        (tmp_path, f"{tmp_path}: cannot be read: Is a directory"),
        (latin, f"{latin}:2:6: is not UTF-8"),
        (large, f"{large}: is larger than 1048576 octets"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.lines() == [expected]


SCALARS = st.one_of(
    st.text(max_size=30),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.sampled_from(["", "5s", "1h", "1MB", "127.0.0.1:25", "[::1]:25", "a.example", "a@b.example", "enforce", "/x"]),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
NAMES = st.sampled_from(sorted({name for path in KEYS for name in path})) | st.text(max_size=8)
TREES = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES, max_size=6), max_size=8)


@settings(deadline=None)  # machines differ in speed
@given(TREES, st.booleans())
def test_any_tree_is_a_configuration_or_refused(tree: dict[str, Any], complete: bool) -> None:
    try:
        config = read(MINIMAL | tree if complete else tree, "f")
    except ConfigError as error:
        assert error.problems
        assert all(line.isprintable() and len(line) < 600 for line in error.lines())
    else:
        assert isinstance(config, Config)
        assert parse(as_text(config), "again") == config


@settings(deadline=None)  # as above
@given(st.text(max_size=300) | st.text(st.sampled_from("ab=[]{}\"'#.,\n\\ 01-:T"), max_size=300))
def test_any_text_is_a_configuration_or_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    assert all(line.isprintable() for line in caught.value.lines())


def test_dates_and_the_like_can_be_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read(MINIMAL | {"workers": datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)}, "f")
    assert "2026-11-22 12:00:00+00:00" in str(caught.value)
