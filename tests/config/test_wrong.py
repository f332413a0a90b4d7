"""Each way to get the configuration wrong, with all that is then told."""

import difflib
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from forwarder.config import Config, ConfigError, read
from forwarder.config.kinds import Choice, Duration, Kind, Size, Whole
from forwarder.config.schema import Section, kinds, sections
from forwarder.config.units import duration_text, parse_duration, parse_size, size_text

MINIMAL = {"hostname": "mx1.example.org", "postmaster": "me@gmail.com", "rules": "/etc/forwarder/rules"}

FILE = "expected the name of a file or folder"
HOST = 'expected a full host name such as "mx1.example.org"'
MAIL = 'expected a mail address such as "me@example.com"'
LISTEN = 'expected an IP address and a port such as "127.0.0.1:2525" or "[::]:25"'
SERVER = 'expected an IP address such as "192.0.2.1", "127.0.0.1:5353" or "[::1]:53"'
SOURCE = 'expected an IP address of this machine such as "192.0.2.1" or "2001:db8::1"'
HOP = 'expected a next hop such as "[192.0.2.9]:25" or "mx.example.org:25"'
URL = 'expected a URL such as "smtp://user@mail.example.org:587", or "" for none'
SIZE = 'expected a size such as "50MB" or "1MiB"'
TIME = 'expected a duration such as "25s" or "1h30m"'
DEADLINE = f"{TIME}, from 1s to 9m: senders wait 10m for the reply to the dot (RFC 5321 4.5.3.2.6)"
ELSEWHERE = "expected an inbox elsewhere: mail for the domain of srs.domain comes back here"
BOTH_OFF = "authentication.spf and authentication.dkim are both false"
NOT_ALWAYS = 'expected "when-needed" or "never", as'
UNFORESEEN = 'nothing is foreseen with authentication.dmarc "off"'
ONCE = "expected each entry once: it is listed twice"

WRONG: list[tuple[str, list[str]]] = [
    # the three that must be given, and the rest of the top
    ('hostname = ""', [f'hostname: "": {HOST}']),
    ('hostname = "mx1"', [f'hostname: "mx1": {HOST}']),
    ('hostname = "192.0.2.1"', [f'hostname: "192.0.2.1": {HOST}']),
    ('hostname = "[192.0.2.1]"', [f'hostname: "[192.0.2.1]": {HOST}']),
    ('hostname = "mx_1.example.org"', [f'hostname: "mx_1.example.org": {HOST}']),
    ('hostname = "mx1..org"', [f'hostname: "mx1..org": {HOST}']),
    ('hostname = "mx1.example.org\\nrules"', [f'hostname: "mx1.example.org\\nrules": {HOST}']),
    ('postmaster = "me"', [f'postmaster: "me": {MAIL} (an address needs an @ and a domain)']),
    ('postmaster = ""', [f'postmaster: "": {MAIL}']),
    ('postmaster = "me@a b"', [f'postmaster: "me@a b": {MAIL} (the domain is malformed)']),
    (
        'postmaster = "me@mx1.example.org"',
        [f'postmaster: "me@mx1.example.org": {ELSEWHERE}'],
    ),
    (
        'postmaster = "me@fwd.example"\n[srs]\ndomain = "fwd.example"',
        [f'postmaster: "me@fwd.example": {ELSEWHERE}'],
    ),
    ('rules = ""', [f'rules: "": {FILE}']),
    ('rules = "a\\u0000b"', [f'rules: "a\\x00b": {FILE}']),
    (f'rules = "{"x" * 1025}"', [f'rules: "{"x" * 79}…": {FILE}']),
    ('state_dir = "state"', ['state_dir: "state": expected an absolute path, one that begins with "/"']),
    ('run_dir = "run"', ['run_dir: "run": expected an absolute path, one that begins with "/"']),
    ("workers = -1", ["workers: -1: expected a whole number from 0 to 1024"]),
    ("workers = 2.0", ["workers: 2.0: expected a whole number from 0 to 1024"]),
    ("workers = true", ["workers: true: expected a whole number from 0 to 1024"]),
    ("workers = 0x" + "f" * 5000, ["workers: a very large number: expected a whole number from 0 to 1024"]),
    # [listen]
    ("listen = 25", ["listen: 25: expected a table, [listen]"]),
    ("[listen]\nsmtp = []", ["listen.smtp: an empty list: expected a list with at least one entry"]),
    ('[listen]\nsmtp = "[::]:25"', ['listen.smtp: "[::]:25": expected a list with at least one entry']),
    ('[listen]\nsmtp = ["localhost:25"]', [f'listen.smtp[0]: "localhost:25": {LISTEN}']),
    ('[listen]\nsmtp = ["127.0.0.1"]', [f'listen.smtp[0]: "127.0.0.1": {LISTEN}']),
    ('[listen]\nsmtp = ["::1:25"]', [f'listen.smtp[0]: "::1:25": {LISTEN}']),
    ('[listen]\nsmtp = ["[127.0.0.1]:25"]', [f'listen.smtp[0]: "[127.0.0.1]:25": {LISTEN}']),
    ('[listen]\nsmtp = ["127.0.0.1:65536"]', [f'listen.smtp[0]: "127.0.0.1:65536": {LISTEN}']),
    ('[listen]\nsmtp = ["127.0.0.1:²"]', [f'listen.smtp[0]: "127.0.0.1:²": {LISTEN}']),
    ('[listen]\nsmtp = ["[fe80::1%eth0]:25"]', [f'listen.smtp[0]: "[fe80::1%eth0]:25": {LISTEN}']),
    ('[listen]\nsmtp = ["[::]:25", "[0::0]:25"]', [f'listen.smtp[1]: "[0::0]:25": {ONCE}']),
    ('[listen]\nhttp = "8025"', [f'listen.http: "8025": {LISTEN} or "" (off)']),
    (
        '[listen]\nsmtp = ["127.0.0.1:8025"]',
        ['listen.http: "127.0.0.1:8025": expected another address than those of listen.smtp'],
    ),
    # [tls]
    ('[tls]\ncertificate = "c.pem"', ['tls.key: "": expected the file of the private key of tls.certificate']),
    ('[tls]\nkey = "k.pem"', ['tls.certificate: "": expected the file of the certificate that tls.key belongs to']),
    ('[tls]\ncertificate = 1\nkey = "k.pem"', [f'tls.certificate: 1: {FILE} or ""']),
    ('[tls]\nkey = "-----BEGIN PRIVATE KEY-----\\nMII"', [f'tls.key: "***": {FILE} or ""']),
    # [limits]
    ('[limits]\nmessage_size = "50 MB"', [f'limits.message_size: "50 MB": {SIZE}, from 64KiB to 1GB']),
    ('[limits]\nmessage_size = "50mb"', [f'limits.message_size: "50mb": {SIZE}, from 64KiB to 1GB']),
    ('[limits]\nmessage_size = "1.5MB"', [f'limits.message_size: "1.5MB": {SIZE}, from 64KiB to 1GB']),
    ("[limits]\nmessage_size = 50000000", [f"limits.message_size: 50000000: {SIZE}, from 64KiB to 1GB"]),
    (
        '[limits]\ndata_rate_minimum = "100B"',
        ['limits.data_rate_minimum: "100B": expected a rate such as "100B/s", from 0B/s to 1MB/s'],
    ),
    ("[limits]\nrecipients = 99", ["limits.recipients: 99: expected a whole number from 100 to 10000"]),
    (
        "[limits]\nline_length = 997",
        ["limits.line_length: 997: expected a whole number from 998 to 1000000000 or 0 (unlimited)"],
    ),
    (
        "[limits]\nconnections = 10",
        ["limits.connections_per_client: 20: expected at most limits.connections (10)"],
    ),
    (
        '[limits]\nsession_timeout = "4m"',
        ['limits.command_timeout: "5m": expected at most limits.session_timeout (4m)'],
    ),
    (
        '[limits]\nsession_timeout = "1m"\ncommand_timeout = "1m"',
        ['limits.data_timeout: "3m": expected at most limits.session_timeout (1m)'],
    ),
    (
        '[limits]\nmessage_size = "100kB"',
        ['limits.header_size: "500kB": expected at most limits.message_size (100kB)'],
    ),
    ("[limits]\nheader_fields = 99", ["limits.header_fields: 99: expected a whole number from 100 to 10000"]),
    ("[limits]\nfield_size = 0", [f"limits.field_size: 0: {SIZE}, from 0B to 64MB"]),
    (
        '[limits]\nfield_size = "1MB"',
        ['limits.field_size: "1MB": expected at most limits.header_size (500kB)'],
    ),
    # [message], [rewrite]
    (
        '[message]\nfrom = "two"',
        ['message.from: "two": expected one of "any", "not-several", "one-field", "one-address"'],
    ),
    ('[message]\nauthor = "any"', ['message.author: "any": unknown key']),
    ('[message]\nsingletons = "yes"', ['message.singletons: "yes": expected true or false']),
    ("[message]\ndate = true", ['message.date: true: expected one of "any", "present", "valid"']),
    ('[message]\nmessage_ids = "any"', ['message.message_ids: "any": unknown key; did you mean message.message_id?']),
    ('[rewrite]\nfrom = "yes"', ['rewrite.from: "yes": expected one of "never", "when-needed", "always"']),
    ('[rewrite]\notherwise = "bounce"', ['rewrite.otherwise: "bounce": expected one of "forward", "reject"']),
    (
        '[rewrite]\nfrom = "always"\notherwise = "reject"\n[authentication]\ndmarc = "off"',
        [
            f'rewrite.from: "always": {NOT_ALWAYS} {UNFORESEEN}',
            f'rewrite.otherwise: "reject": expected "forward", as {UNFORESEEN}',
        ],
    ),
    (
        '[rewrite]\nfrom = "always"\n[dkim]\nsign = false',
        [f'rewrite.from: "always": {NOT_ALWAYS} a rewritten From is worth nothing with dkim.sign false'],
    ),
    ('from = "any"', ['from: "any": unknown key; did you mean message.from or rewrite.from?']),
    # [authentication]
    ('[authentication]\nspf = "yes"', ['authentication.spf: "yes": expected true or false']),
    ("[authentication]\nspf = 1", ["authentication.spf: 1: expected true or false"]),
    (
        '[authentication]\ndmarc = "Enforce"',
        ['authentication.dmarc: "Enforce": expected one of "enforce", "report", "off"'],
    ),
    (
        "[authentication]\nspf = false\ndkim = false",
        [f'authentication.dmarc: "enforce": expected "off", as {BOTH_OFF}'],
    ),
    (
        '[authentication]\nspf = false\ndkim = false\ndmarc = "off"\nunauthenticated = "reject"',
        [
            'authentication.unauthenticated: "reject": expected "accept", as with authentication.spf and '
            "authentication.dkim both false all mail would be refused"
        ],
    ),
    (
        '[authentication]\ntrusted_arc_sealers = ["google.com", "GOOGLE.com.", "x"]',
        [
            f'authentication.trusted_arc_sealers[1]: "GOOGLE.com.": {ONCE}',
            'authentication.trusted_arc_sealers[2]: "x": expected a domain name such as "google.com"',
        ],
    ),
    # [srs]
    (
        '[srs]\ndomain = "me@fwd.example"',
        ['srs.domain: "me@fwd.example": expected a domain name such as "fwd.example.org" or "" (the host name)'],
    ),
    ('[srs]\nsecrets = ["correct horse battery"]', [f'srs.secrets: "***": {FILE}']),
    ('[srs]\nmax_age = "36h"', ['srs.max_age: "36h": expected whole days such as "21d", from 1d to 1000d']),
    (
        '[srs]\nmax_age = "4d"',
        ['srs.max_age: "4d": expected at least delivery.expire (5d): bounces may come that late'],
    ),
    # [delivery]
    ('[delivery]\nmode = "fast"', ['delivery.mode: "fast": expected one of "cutthrough", "queue"']),
    ('[delivery]\ncutthrough_deadline = "10m"', [f'delivery.cutthrough_deadline: "10m": {DEADLINE}']),
    ("[delivery]\ncutthrough_deadline = 25", [f"delivery.cutthrough_deadline: 25: {DEADLINE}"]),
    ('[delivery]\ncutthrough_deadline = "25"', [f'delivery.cutthrough_deadline: "25": {DEADLINE}']),
    ('[delivery]\ncutthrough_deadline = ""', [f'delivery.cutthrough_deadline: "": {DEADLINE}']),
    ('[delivery]\ncutthrough_deadline = "1s1m"', [f'delivery.cutthrough_deadline: "1s1m": {DEADLINE}']),
    (
        '[delivery]\nexpire = "1m"\ncutthrough_deadline = "2m"',
        ['delivery.expire: "1m": expected at least delivery.cutthrough_deadline (2m)'],
    ),
    ('[delivery]\nip = "ipv5"', ['delivery.ip: "ipv5": expected one of "prefer-ipv4", "prefer-ipv6", "ipv4", "ipv6"']),
    (
        '[delivery]\nip = "ipv4"\nsource_addresses = ["192.0.2.1", "2001:db8::1"]',
        ['delivery.source_addresses: a list: expected IPv4 addresses alone, as delivery.ip is "ipv4"'],
    ),
    (
        '[delivery]\nip = "ipv6"\nsource_addresses = ["192.0.2.1"]',
        ['delivery.source_addresses: a list: expected IPv6 addresses alone, as delivery.ip is "ipv6"'],
    ),
    (
        '[delivery]\nsource_addresses = ["0.0.0.0", "ff02::1", "here"]',
        [
            f'delivery.source_addresses[0]: "0.0.0.0": {SOURCE}',
            f'delivery.source_addresses[1]: "ff02::1": {SOURCE}',
            f'delivery.source_addresses[2]: "here": {SOURCE}',
        ],
    ),
    (
        '[delivery]\nsmarthost = "smtp://me:hunter2@mail.example"',
        [
            'delivery.smarthost: "smtp://me:***": expected no password here: '
            "put it into the file that delivery.smarthost_password names"
        ],
    ),
    ('[delivery]\nsmarthost = "me:hunter2@mail.example"', [f'delivery.smarthost: "me:***": {URL}']),
    ('[delivery]\nsmarthost = "smtp://hunter2:mail"', [f'delivery.smarthost: "smtp://hunter2:***": {URL}']),
    ('[delivery]\nsmarthost = "https://mail.example"', [f'delivery.smarthost: "https://mail.example": {URL}']),
    ('[delivery]\nsmarthost = "smtp://@mail.example"', [f'delivery.smarthost: "smtp://@mail.example": {URL}']),
    (
        '[delivery]\nsmarthost = "smtp://a%0Db@mail.example"',
        [f'delivery.smarthost: "smtp://a%0Db@mail.example": {URL}'],
    ),
    ('[delivery]\nsmarthost_password = ["hunter2"]', [f'delivery.smarthost_password: "***": {FILE}']),
    (
        '[delivery]\nroutes = ["gmail.com"]',
        ['delivery.routes: a list: expected a table such as "gmail.com" = "[192.0.2.9]:25"'],
    ),
    (
        '[delivery.routes]\n"a b" = "[192.0.2.9]"\n"b.example" = "[192.0.2.9]:0"\n"c.example" = 25',
        [
            'delivery.routes."a b": "[192.0.2.9]": expected a domain name as the key (the domain is malformed)',
            f'delivery.routes."b.example": "[192.0.2.9]:0": {HOP} (the port of a next hop is a number from 1 to 65535)',
            f'delivery.routes."c.example": 25: {HOP} (the domain is empty or too long)',
        ],
    ),
    (
        '[delivery.routes]\n"bücher.example" = "[192.0.2.9]"\n"XN--bcher-kva.example" = "[192.0.2.8]"',
        [
            'delivery.routes."XN--bcher-kva.example": "[192.0.2.8]": '
            "expected one route for xn--bcher-kva.example: it is listed twice"
        ],
    ),
    (
        '[delivery.routes]\n"a\\nb" = ""',
        ['delivery.routes."a\\nb": "": expected a domain name as the key (the domain is malformed)'],
    ),
    # [dns], [log]
    ('[dns]\nnameservers = ["dns.example"]', [f'dns.nameservers[0]: "dns.example": {SERVER}']),
    ('[dns]\nnameservers = ["fe80::1%eth0"]', [f'dns.nameservers[0]: "fe80::1%eth0": {SERVER}']),
    ('[dns]\nnameservers = ["127.0.0.1:0"]', [f'dns.nameservers[0]: "127.0.0.1:0": {SERVER}']),
    ('[dns]\nnameservers = ["::1", "[::1]:53"]', [f'dns.nameservers[1]: "[::1]:53": {ONCE}']),
    ('[dns]\ntimeout = "0s"', [f'dns.timeout: "0s": {TIME}, from 100ms to 1m']),
    ('[log]\nformat = "xml"', ['log.format: "xml": expected one of "auto", "journal", "json", "text"']),
    (
        "[log]\nlevel = 1979-05-27",
        ['log.level: 1979-05-27: expected one of "debug", "info", "notice", "warning", "error"'],
    ),
    # unknown keys
    ("hostnam = 1", ["hostnam: 1: unknown key; did you mean hostname?"]),
    ('message_size = "1MB"', ['message_size: "1MB": unknown key; did you mean limits.message_size?']),
    ('timeout = "1s"', ['timeout: "1s": unknown key; did you mean dns.timeout?']),
    (
        'data_timeout = "1s"',
        ['data_timeout: "1s": unknown key; did you mean limits.data_timeout or delivery.data_timeout?'],
    ),
    ("xyzzy = 1", ["xyzzy: 1: unknown key"]),
    ("[delivery]\nworkers = 1", ["delivery.workers: 1: unknown key; did you mean workers?"]),
    (
        '[delivery]\ncutthru_deadline = "1s"',
        ['delivery.cutthru_deadline: "1s": unknown key; did you mean delivery.cutthrough_deadline?'],
    ),
    ('[delivery]\n"a\\nb" = 1', ['delivery."a\\nb": 1: unknown key']),
    ("[submission]\nport = 587", ["submission: a table: unknown key"]),
    ('[srs]\nsecret = "correct horse"', ["srs.secret: ***: unknown key; did you mean srs.secrets?"]),
    (
        '[delivery]\npassword = "hunter2"',
        ["delivery.password: ***: unknown key; did you mean delivery.smarthost_password?"],
    ),
]


def told(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tree, "f")
    return [line.removeprefix("f: ") for line in caught.value.lines()]


@pytest.mark.parametrize(("fragment", "expected"), WRONG, ids=[fragment for fragment, _ in WRONG])
def test_wrong_configuration(fragment: str, expected: list[str]) -> None:
    assert told(MINIMAL | tomllib.loads(fragment)) == expected


def test_what_must_be_given() -> None:
    assert told({}) == [
        f"hostname: (missing): {HOST}",
        f"postmaster: (missing): {MAIL}",
        f"rules: (missing): {FILE}",
    ]


def test_everything_wrong_is_told_at_once() -> None:
    fragment = """
        hostname = "mx1"
        postmaster = "me@gmail.com"
        colour = "red"
        [listen]
        smtp = ["127.0.0.1", "127.0.0.1:25", "[::1]"]
        [tls]
        key = "k.pem"
        [delivery]
        cutthrough_deadline = "1h"
        expire = "1m"
        ports = 25
    """
    assert told(tomllib.loads(fragment)) == [
        'colour: "red": unknown key',
        f'hostname: "mx1": {HOST}',
        f"rules: (missing): {FILE}",
        f'listen.smtp[0]: "127.0.0.1": {LISTEN}',
        f'listen.smtp[2]: "[::1]": {LISTEN}',
        "delivery.ports: 25: unknown key; did you mean delivery.port?",
        f'delivery.cutthrough_deadline: "1h": {DEADLINE}',
        'tls.certificate: "": expected the file of the certificate that tls.key belongs to',
    ]


def test_a_wrong_value_takes_part_in_no_contradiction() -> None:
    fragment = "[limits]\nconnections = 0\nconnections_per_client = 5000\n"
    assert told(MINIMAL | tomllib.loads(fragment)) == [
        "limits.connections: 0: expected a whole number from 1 to 100000"
    ]


def test_at_most_a_hundred_problems_are_told() -> None:
    assert len(told(MINIMAL | {"delivery": {"routes": {f"key {number}": "" for number in range(1000)}}})) == 100


def test_a_file_full_of_unknown_keys_costs_no_more_than_a_hundred(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(name: str, *_: object, **__: object) -> list[str]:
        compared.append(name)
        return []

    monkeypatch.setattr(difflib, "get_close_matches", compare)
    assert len(told(MINIMAL | {"x" * 65: 1} | {f"key{number}": 1 for number in range(50_000)})) == 100
    assert len(compared) == 99  # a long name is not compared at all


def every_key(schema: type[Section] = Config, *path: str) -> Iterator[tuple[tuple[str, ...], Kind]]:
    yield from (((*path, field.encode_name), kind) for field, kind in kinds(schema))
    for name, inner in sections(schema):
        yield from every_key(inner, *path, name)


KEYS = dict(every_key())
OF_EACH_TYPE: dict[str, Any] = {
    "string": "no such thing",
    "number": -7,
    "fraction": 0.5,
    "switch": True,
    "list": [[]],
    "table": {"no such": 1},
    "date": tomllib.loads("d = 1979-05-27")["d"],
}
TAKES = {"Switch": {"switch"}, "File": {"string"}}


def put(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    tree = dict[str, Any](MINIMAL)
    for name in reversed(path[1:]):
        value = {name: value}
    return tree | {path[0]: value}


@pytest.mark.parametrize("path", KEYS, ids=".".join)
@pytest.mark.parametrize("given", OF_EACH_TYPE)
def test_wrong_type(path: tuple[str, ...], given: str) -> None:
    if given in TAKES.get(type(KEYS[path]).__name__, set()) and path[-1] not in ("state_dir", "run_dir"):
        return
    lines = told(put(path, OF_EACH_TYPE[given]))
    assert all(line.startswith(".".join(path)) and ": expected " in line for line in lines)
    assert lines


@pytest.mark.parametrize("path", KEYS, ids=".".join)
def test_unknown_key_beside_each_key(path: tuple[str, ...]) -> None:
    misspelt = (*path[:-1], f"{path[-1]}x")
    meant = ".".join(path)
    (line,) = told(put(misspelt, 1))
    assert line.startswith(f"{meant}x: ")
    assert line.endswith(f"unknown key; did you mean {meant}?")


def outside(kind: Kind) -> list[str | int]:
    """Values of the right type just beyond the bounds."""
    match kind:
        case Whole():
            return [kind.low - 1, kind.high + 1]
        case Size():
            low, high = parse_size(kind.low), parse_size(kind.high)
            return [f"{size_text(octets)}{kind.per}" for octets in (low - 1, high + 1) if octets >= 0]
        case Duration():
            bounds = parse_duration(kind.low) - 0.001, parse_duration(kind.high) + 0.001
            return [duration_text(seconds) for seconds in bounds if seconds >= 0]
    return []


@pytest.mark.parametrize("path", [path for path, kind in KEYS.items() if outside(kind)], ids=".".join)
def test_bounds(path: tuple[str, ...]) -> None:
    for value in outside(KEYS[path]):
        (line,) = told(put(path, value))
        assert line.startswith(".".join(path))
        assert " from " in line


def test_every_choice_is_tried_somewhere() -> None:
    assert {path[-1] for path, kind in KEYS.items() if isinstance(kind, Choice)} == {
        "dmarc",
        "unauthenticated",
        "mode",
        "ip",
        "tls",
        "format",
        "level",
        "from",
        "otherwise",
        "date",
        "message_id",
    }
