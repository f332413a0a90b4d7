"""`forwarder dns records` and `dns check`, against a name server that has been given what the former printed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest
from click.testing import CliRunner, Result
from dns.rdtypes.txtbase import TXTBase

from deploy.demo.zone import Trouble
from forwarder.cli import main
from tests.lab.world import World, loopback_world

HEAD = "@ 60 IN SOA ns.example.org. hostmaster.example.org. 1 3600 600 86400 60\n@ 60 IN NS ns.example.org.\n"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let the machine have no public address, unless a test adds some."""
    addresses: list[tuple[str, int]] = [("127.0.0.1", 0), ("192.168.1.2", 0)]
    monkeypatch.setattr("forwarder.cli.site.own_addresses", lambda _: frozenset(addresses))
    return addresses


@pytest.fixture
def world() -> Iterator[World]:
    with loopback_world() as world:
        yield world


@pytest.fixture
def config(tmp_path: Path, world: World) -> Path:
    (tmp_path / "a.rules").write_text("[example.org, bücher.example]\n* -> me@gmail.com\n")
    file = tmp_path / "forwarder.toml"
    file.write_text(
        'hostname = "mx1.example.org"\npostmaster = "me@gmail.com"\n'
        f'rules = "{tmp_path}/a.rules"\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
        f'[srs]\ndomain = "fwd.example.org"\n[dns]\nnameservers = ["{world.dns.address}"]\ntimeout = "2s"\n'
    )
    return file


def run(config: Path, *arguments: str, group: str = "dns") -> Result:
    result = CliRunner().invoke(main, [group, *arguments, "--config", str(config)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "\x1b" not in result.output
    assert "PRIVATE" not in result.output
    return result


def publish(world: World, printed: str, address: str) -> None:
    """Load zones as they were printed, and what the provider sets."""
    for piece in printed.split("; ---- Zone ")[1:]:
        name = piece.split()[0]
        _, _, rest = piece.partition("\n")
        zone = dns.zone.from_text(rest.replace("$TTL", HEAD + "$TTL", 1), name, relativize=False)
        for owner, _, data in zone.iterate_rdatas():
            kind = dns.rdatatype.to_text(data.rdtype)
            text = b"".join(data.strings).decode() if isinstance(data, TXTBase) else data.to_text()
            world.dns.add(owner.to_text(), kind, text)
    world.dns.add(ip_address(address).reverse_pointer, "PTR", "mx1.example.org.")


def findings(result: Result) -> dict[tuple[str, str], dict[str, str]]:
    return {(each["name"], each["type"]): each for each in json.loads(result.stdout)["findings"]}


def test_what_was_printed_and_published_is_all_right(config: Path, world: World) -> None:
    address = "203.0.113.5"
    assert run(config, "generate", group="keys").exit_code == 0
    assert run(config, "generate", "--type=ed25519", group="keys").exit_code == 0
    before = run(config, "check", "--ipv4", address)
    assert before.exit_code == 1
    printed = run(config, "records", "--ipv4", address)
    assert (printed.exit_code, printed.stderr) == (0, "")
    publish(world, printed.stdout, address)

    checked = run(config, "check", "--ipv4", address)
    assert checked.exit_code == 0, checked.stdout
    assert checked.stdout.splitlines()[-1] == "15 ok"
    as_json = run(config, "check", "--ipv4", address, "--json")
    tree = json.loads(as_json.stdout)
    assert tree["fine"] is True
    assert {each["status"] for each in tree["findings"]} == {"ok"}
    assert set(tree["findings"][0]) == {"status", "for", "name", "type", "there", "expected", "fix"}
    assert {each["for"] for each in tree["findings"]} == {
        *("example.org", "xn--bcher-kva.example", "fwd.example.org", "mx1.example.org"),
    }


def test_what_is_wrong_is_told_with_difference_and_fix(config: Path, world: World) -> None:
    run(config, "generate", "--domain", "example.org", "--type=ed25519", group="keys")
    publish(world, run(config, "records", "--ipv4", "203.0.113.5").stdout, "203.0.113.5")
    world.dns.replace("example.org.", "MX", "10 mail.other.example.")
    world.dns.add("mail.other.example.", "A", "198.51.100.1")
    world.dns.replace("fwd.example.org.", "TXT", "v=spf1 +all")
    checked = run(config, "check", "--ipv4", "203.0.113.5")
    assert checked.exit_code == 1
    assert (
        "  different  example.org. MX\n"
        "    there:     10 mail.other.example.\n"
        "    should be: 10 mx1.example.org.\n"
        "    fix:       put 10 mx1.example.org. in its place (mail.other.example: it is 198.51.100.1, not this host, "
        "and what it takes is not forwarded from here)\n"
    ) in checked.stdout
    assert '    there:     "v=spf1 +all"\n' in checked.stdout
    assert "2 different" in checked.stdout.splitlines()[-1]


def test_time_outs_are_not_held_against_it(config: Path, world: World) -> None:
    publish(world, run(config, "records", "--ipv4", "203.0.113.5").stdout, "203.0.113.5")
    for name in ("example.org.", "_dmarc.example.org.", "*.example.org."):
        world.dns.trouble(name, Trouble.SERVFAIL)
    checked = run(config, "check", "--ipv4", "203.0.113.5", "--domain", "example.org")
    assert checked.exit_code == 0
    assert "  unknown    example.org. MX\n" in checked.stdout
    assert "fix:       try again later" in checked.stdout
    assert checked.stdout.splitlines()[-1].endswith("could not be checked")


def test_one_domain(config: Path, world: World) -> None:
    records = json.loads(run(config, "records", "--json", "--domain", "BÜCHER.example").stdout)
    (zone,) = records["zones"]
    assert zone["zone"] == "xn--bcher-kva.example"
    assert {each["for"] for each in zone["records"]} == {"xn--bcher-kva.example"}
    checked = findings(run(config, "check", "--json", "--domain", "fwd.example.org"))
    assert {each["for"] for each in checked.values()} == {"fwd.example.org"}
    wrong = run(config, "records", "--domain", "example.com")
    assert wrong.exit_code == 2
    assert "example.com is no served domain" in wrong.stderr


def test_records_as_json(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", "--type=ed25519", group="keys")
    zones = json.loads(run(config, "records", "--json", "--ipv4", "203.0.113.5").stdout)["zones"]
    assert [zone["zone"] for zone in zones] == ["example.org", "xn--bcher-kva.example", ""]
    mx, key, *_ = zones[0]["records"]
    assert mx == {
        "name": "example.org.",
        "type": "MX",
        "data": "10 mx1.example.org.",
        "for": "example.org",
        "use": "publish",
        "why": "Mail for example.org comes here. Never a CNAME, never proxied.",
    }
    assert key["data"] == f'"{key["text"]}"'
    assert key["text"].startswith("v=DKIM1; k=ed25519; p=")
    uses = {each["use"] for zone in zones for each in zone["records"]}
    assert uses == {"publish", "optional", "ask your provider"}


def test_where_addresses_come_from(config: Path, world: World, machine: list[tuple[str, int]]) -> None:
    def address_lines() -> list[str]:
        lines = run(config, "records", "--domain", "mx1.example.org").stdout.splitlines()
        return [" ".join(line.split()) for line in lines if line.split()[1:2] == ["A"] or line.split()[2:3] == ["A"]]

    assert address_lines() == ["; mx1.example.org. A 192.0.2.1"]
    machine.append(("8.8.8.8", 0))
    assert address_lines() == ["mx1.example.org. A 8.8.8.8"]
    world.dns.add("mx1.example.org", "A", "203.0.113.9")
    assert address_lines() == ["mx1.example.org. A 203.0.113.9"]
    checked = findings(run(config, "check", "--json"))
    assert checked["mx1.example.org.", "A"]["status"] == "different"
    assert "no address of this host" in checked["mx1.example.org.", "A"]["fix"]


@pytest.mark.parametrize(
    "option", [("--ipv4", "::1"), ("--ipv6", "192.0.2.1"), ("--ipv4", "x"), ("--ipv6", "fe80::1%lo")]
)
def test_addresses_that_are_none(config: Path, option: tuple[str, str]) -> None:
    for command in ("records", "check"):
        wrong = run(config, command, *option)
        assert wrong.exit_code == 2
        assert f"is no IPv{option[0][-1]} address" in wrong.stderr


def test_rules_and_keys_that_cannot_be_read(config: Path) -> None:
    run(config, "generate", "--domain", "example.org", "--type=ed25519", group="keys")
    (path,) = (config.parent / "state/keys/example.org").glob("*.pem")
    path.chmod(0o640)
    refused = run(config, "records")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"{path}: ")
    path.chmod(0o600)
    (config.parent / "a.rules").write_text("[example.org]\nx -> y\n")
    refused = run(config, "check")
    assert (refused.exit_code, "a.rules:2:6" in refused.stderr) == (1, True)


def test_what_strangers_wrote_cannot_move_the_cursor(config: Path, world: World) -> None:
    world.dns.add("fwd.example.org", "TXT", "v=spf1 \x1b[2J\u202e")
    checked = run(config, "check")
    assert "\x1b" not in checked.stdout
    assert "\u202e" not in checked.stdout


def test_help_is_quick() -> None:
    code = "import sys; from forwarder.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "  dns " in done.stdout
    assert "  keys " in done.stdout
    assert not {"cryptography", "dns", "asyncio", "msgspec"} & set(done.stdout.split("\n")[-2].split())
