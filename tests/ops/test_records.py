"""The records that a gateway needs, as a zone file that name servers accept."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
import dns.zone
import pytest
from dns.rdtypes.txtbase import TXTBase
from hypothesis import given
from hypothesis import strategies as st

from forwarder.auth.dmarc import verify as dmarc
from forwarder.auth.dmarc.record import Policy
from forwarder.auth.dmarc.verify import DmarcStatus
from forwarder.auth.spf.verify import SpfCheck, SpfResult, SpfStatus
from forwarder.model.headers import split_header
from forwarder.ops.records import DkimRecord, Site, Use, Zone, quoted, records, zone_file, zones
from tests.fakes import FakeResolver

GOLDEN = Path(__file__).parent / "records.zone"
HEAD = "@ 3600 IN SOA ns.example.net. hostmaster.example.net. 1 3600 600 86400 60\n@ 3600 IN NS ns.example.net.\n"
KEY = "v=DKIM1; k=rsa; p=" + "A" * 392
SITE = Site(
    "mx1.example.org",
    "fwd.example.org",
    ("example.org", "xn--bcher-kva.example"),
    ("203.0.113.5", "2001:db8:5::5"),
    (
        DkimRecord("example.org", "s20261123._domainkey.example.org", KEY),
        DkimRecord("xn--bcher-kva.example", "e20261123._domainkey.xn--bcher-kva.example", "v=DKIM1; k=ed25519; p=AAAA"),
        DkimRecord("example.net", "s1._domainkey.example.net", KEY, "a key of a domain that no rule is for"),
    ),
)


def text(zone: Zone, head: str = HEAD) -> str:
    """Give one zone as a name server may load it."""
    return f"$ORIGIN {zone.name}.\n{head}{zone_file([zone])}"


def test_the_zone_file_is_as_it_was_read_last() -> None:
    assert zone_file(zones(records(SITE))) == GOLDEN.read_text()


def test_dnspython_loads_every_zone_with_all_that_is_to_be_published() -> None:
    for zone in zones(records(SITE)):
        if not zone.name:
            continue
        loaded = dns.zone.from_text(text(zone), zone.name, relativize=False)
        got = {
            (name.to_text(omit_final_dot=True), dns.rdatatype.to_text(data.rdtype), data.to_text())
            for name, _, data in loaded.iterate_rdatas()
            if data.rdtype not in (dns.rdatatype.SOA, dns.rdatatype.NS)
        }
        assert got == {(each.name, each.kind, each.presented) for each in zone.records if each.use is Use.PUBLISH}


def test_what_is_optional_loads_too() -> None:
    for zone in zones(records(SITE)):
        if zone.name:
            lines = [
                line.removeprefix("; ") if line.split()[2:3] and line.split()[2] in _KINDS else line
                for line in text(zone).splitlines()
            ]
            loaded = dns.zone.from_text("\n".join(lines), zone.name, relativize=False)
            kinds = {dns.rdatatype.to_text(data.rdtype) for _, _, data in loaded.iterate_rdatas()}
            if zone.name == "example.org":
                assert kinds >= {"TLSA", "CAA", "A", "AAAA"}


_KINDS = {"TXT", "TLSA", "CAA"}


def test_the_provider_sets_the_ptr() -> None:
    *_, last = zones(records(SITE))
    assert last.name == ""
    assert [(each.name, each.data) for each in last.records] == [
        ("5.113.0.203.in-addr.arpa", "mx1.example.org."),
        ("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "mx1.example.org."),
    ]
    assert all(line.startswith(";") for line in zone_file([last]).splitlines() if line)


def test_examples_are_comments_and_say_so() -> None:
    site = Site("mx1.example.org", "fwd.example.org", ("example.org",))
    written = zone_file(zones(records(site)))
    lines = [line for line in written.splitlines() if "192.0.2.1" in line or "2001:db8::1" in line]
    assert len(lines) == 5
    assert all(line.startswith("; ") for line in lines)
    assert "EXAMPLE: put the public IPv4 address" in written
    assert '"v=spf1 a:mx1.example.org -all"' in written  # no example address gets into SPF


def test_one_spf_record_where_the_srs_domain_is_the_host() -> None:
    site = Site("mx1.example.org", "mx1.example.org", ("example.org",), ("203.0.113.5",))
    found = [each for each in records(site) if each.data.startswith("v=spf1")]
    assert [(each.name, each.data) for each in found] == [("mx1.example.org", "v=spf1 a -all")]


def test_each_record_once() -> None:
    site = Site("example.org", "example.org", ("example.org",), ("203.0.113.5",), SITE.dkim)
    found = [(each.name, each.kind, each.data) for each in records(site)]
    assert len(found) == len(set(found))


def test_the_policy_to_begin_with_loses_nothing_and_the_strict_one_is_at_hand() -> None:
    found = {each.use: each.data for each in records(SITE) if each.name == "_dmarc.example.org"}
    assert found == {
        Use.PUBLISH: "v=DMARC1; p=none; np=reject; aspf=s; rua=mailto:postmaster@example.org",
        Use.OPTIONAL: "v=DMARC1; p=reject; sp=reject; np=reject; aspf=s; rua=mailto:postmaster@example.org",
    }


@pytest.mark.parametrize("sender", ["fwd.example.org", "mx1.example.org"])
async def test_what_is_forged_does_not_pass_by_the_spf_of_what_we_forward(sender: str) -> None:
    zone: dict[tuple[str, str], list[str]] = {}
    for each in records(SITE):
        if each.use is Use.PUBLISH:
            zone.setdefault((each.name, each.kind), []).append(each.data)
    lent = SpfResult(SpfStatus.PASS, sender, "", "")
    header = split_header(b"From: me@example.org\r\n\r\n")
    result = await dmarc.verify(FakeResolver(zone), header, SpfCheck(lent, lent), ())
    assert result.status is DmarcStatus.FAIL


async def test_nobody_writes_from_the_srs_domain() -> None:
    zone = {(each.name, each.kind): [each.data] for each in records(SITE) if each.use is Use.PUBLISH}
    nothing = SpfResult(SpfStatus.NONE, "evil.example", "", "")
    header = split_header(b"From: me@fwd.example.org\r\n\r\n")
    result = await dmarc.verify(FakeResolver(zone), header, SpfCheck(nothing, nothing), ())
    assert (result.status, result.policy) == (DmarcStatus.FAIL, Policy.REJECT)


@given(st.text(st.characters(codec="utf-8"), max_size=700))
def test_any_text_reads_back_from_its_strings(value: str) -> None:
    """`quoted` gives strings of at most 255 octets that a reader of zone files joins to the same octets."""
    data = dns.rdata.from_text("IN", "TXT", quoted(value))
    assert isinstance(data, TXTBase)
    assert b"".join(data.strings) == value.encode()
    assert max(map(len, data.strings)) <= 255


@pytest.mark.skipif(shutil.which("named-checkzone") is None, reason="named-checkzone is not installed")
def test_bind_accepts_it(tmp_path: Path) -> None:
    for zone in zones(records(SITE)):
        if zone.name:
            path = tmp_path / zone.name
            path.write_text(text(zone))
            done = subprocess.run(["named-checkzone", zone.name, path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout


UNBOUND = shutil.which("unbound", path="/usr/sbin:/usr/local/sbin:/usr/bin")


@contextmanager
def unbound(folder: Path, zone: Zone) -> Iterator[int]:
    """Serve a zone with unbound; give the port."""
    (folder / "zone").write_text(text(zone))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "conf").write_text(
        f'server:\n interface: 127.0.0.1@{port}\n chroot: ""\n username: ""\n directory: "{folder}"\n pidfile: ""\n'
        f' use-syslog: no\n logfile: ""\n verbosity: 1\n num-threads: 1\n do-daemonize: no\n'
        f"remote-control:\n control-enable: no\n"
        f'auth-zone:\n name: "{zone.name}"\n zonefile: "{folder}/zone"\n for-downstream: yes\n for-upstream: no\n'
    )
    assert UNBOUND is not None
    with subprocess.Popen([UNBOUND, "-d", "-c", folder / "conf"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                assert "error" not in line, line
                if "start of service" in line:
                    break
            yield port
        finally:
            process.terminate()
            process.communicate(timeout=10)


@pytest.mark.skipif(UNBOUND is None, reason="unbound is not installed")
def test_unbound_serves_it(tmp_path: Path) -> None:
    zone = zones(records(SITE))[0]
    with unbound(tmp_path, zone) as port:
        for record in zone.records:
            if record.use is Use.PUBLISH:
                query = dns.message.make_query(record.name, record.kind)
                answer = dns.query.udp(query, "127.0.0.1", timeout=10, port=port).answer
                assert record.presented in [data.to_text() for data in answer[0]], record
