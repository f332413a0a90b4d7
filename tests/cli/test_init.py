"""`forwarder init`: what it writes, what it refuses, and that it then has written nothing."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forwarder.cli import main
from forwarder.cli.init import _SYSTEM_STATE
from forwarder.config import load
from forwarder.model.address import Address
from forwarder.ops import rotation
from forwarder.ops.keys import KeysError, load_keys
from forwarder.ops.secrets import srs_secrets
from forwarder.rewrite.signing_key import public_record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "forwarder"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine have no public address."""
    monkeypatch.setattr("forwarder.cli.site.own_addresses", lambda _: frozenset({("127.0.0.1", 0)}))


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments), env={"FORWARDER_CONFIG": None, "CREDENTIALS_DIRECTORY": None})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def init(folder: Path, *arguments: str, domain: str = "example.org", to: str = "me@gmail.com") -> Result:
    return run("init", "--domain", domain, "--to", to, "--dir", str(folder), *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_it_writes_is_in_order(folder: Path) -> None:
    assert init(folder).exit_code == 0
    config = load(folder / "forwarder.toml")
    assert config.hostname == "mx1.example.org"
    assert config.postmaster == Address("me", "gmail.com")
    assert config.srs.domain == "fwd.example.org"
    assert (config.rules, config.state_dir, config.run_dir) == (folder / "rules", folder / "state", folder / "run")
    assert (folder / "rules" / "example.org.rules").read_text().splitlines()[-2:] == [
        "[example.org]",
        "* -> me@gmail.com",
    ]
    result = run("config", "check", "--config", str(folder / "forwarder.toml"))
    assert (result.exit_code, result.output.count("\n")) == (0, 1)


def test_without_a_folder_it_goes_where_the_system_keeps_such_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = folder.parent / "lib" / "forwarder"
    assert Path("/var/lib/forwarder") == _SYSTEM_STATE
    monkeypatch.setattr("forwarder.cli.init._SYSTEM_DIR", folder)
    monkeypatch.setattr("forwarder.cli.init._SYSTEM_STATE", state)
    assert run("init", "--domain", "example.org", "--to", "me@gmail.com").exit_code == 0
    config = load(folder / "forwarder.toml")
    assert (config.state_dir, config.run_dir) == (state, Path("/run/forwarder"))
    assert config.srs.secrets == folder / "srs.secrets"
    assert not (folder / "state").exists()
    assert state.stat().st_mode & 0o777 == 0o700
    assert len(load_keys(state / "keys").for_domain("example.org")) == 1


def test_a_relative_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    assert init(Path("forwarder")).exit_code == 0
    assert load(folder / "forwarder.toml").rules == folder / "rules"


def test_modes(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        assert init(folder).exit_code == 0
    finally:
        os.umask(before)
    modes = {str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes["srs.secrets"] == 0o600
    assert modes["state"] == 0o700
    assert modes["forwarder.toml"] == modes["rules/example.org.rules"] == 0o644


def test_the_secret_is_new_each_time_and_not_told(tmp_path: Path) -> None:
    results = [init(tmp_path / name) for name in ("a", "b")]
    (first,), (second,) = (srs_secrets(tmp_path / name / "srs.secrets", {}) for name in ("a", "b"))
    assert first != second
    assert min(len(first), len(second)) >= 43  # 256 bits
    assert all(first.decode() not in result.output for result in results)


def published(output: str) -> list[tuple[str, ...]]:
    """Give the records of a zone file that are no comments."""
    matches = re.finditer(r"^(; )?(\S+\.)  +(MX|A|AAAA|TXT|PTR)  +(.*)$", output, re.MULTILINE)
    return [match.groups()[1:] for match in matches if not match[1]]


def test_what_it_prints(folder: Path) -> None:
    result = init(folder, "--hostname", "mail.example.net", "--srs-domain", "srs.example.net", "--ipv4", "203.0.113.5")
    (key,) = load_keys(folder / "state" / "keys").for_domain("example.org")
    records = published(result.output)
    assert [record[:2] for record in records] == [
        ("example.org.", "MX"),
        (f"{key.name}.", "TXT"),
        ("_dmarc.example.org.", "TXT"),
        ("mail.example.net.", "A"),
        ("mail.example.net.", "TXT"),
        ("srs.example.net.", "MX"),
        ("srs.example.net.", "TXT"),
        ("_dmarc.srs.example.net.", "TXT"),
    ]
    assert records[0][2] == "10 mail.example.net."
    assert records[1][2].replace('" "', "") == f'"{public_record(key)}"'
    assert records[3][2] == "203.0.113.5"
    assert records[6][2] == '"v=spf1 ip4:203.0.113.5 -all"'
    assert "5.113.0.203.in-addr.arpa.  PTR   mail.example.net." in result.output
    assert f"forwarder serve --config {folder}/forwarder.toml" in result.output
    assert result.output == with_printed_records(folder, result.output)


def with_printed_records(folder: Path, output: str) -> str:
    """Give the output with the zone file in it replaced by what `dns records` prints."""
    printed = run("dns", "records", "--config", str(folder / "forwarder.toml"), "--ipv4", "203.0.113.5").stdout
    before, _, rest = output.partition("; ---- Zone ")
    return before + printed + "\nThen:\n" + rest.partition("\nThen:\n")[2]


def test_without_an_address_it_prints_an_example_that_is_none(folder: Path) -> None:
    output = init(folder).output
    assert not [record for record in published(output) if record[1] in ("A", "AAAA")]
    assert "EXAMPLE: put the public IPv4 address of this host for 192.0.2.1" in output


def test_a_key_for_each_domain(folder: Path) -> None:
    output = init(folder, "--domain", "example.com").output
    keys = load_keys(folder / "state" / "keys")
    assert sorted(keys.by_domain) == ["example.com", "example.org"]
    for domain in keys.by_domain:
        (key,) = keys.for_domain(domain)
        assert (key.kind, getattr(key.private, "key_size", 0)) == ("rsa", 2048)
        path = folder / "state" / "keys" / domain / f"{key.selector}.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        assert f"  {path}\n" in output
        assert not any(line in output for line in path.read_text().splitlines()[1:-1])
    assert keys.warnings == ()


def test_keys_that_are_there_already_stay(folder: Path) -> None:
    init(folder)
    before = {path: path.read_bytes() for path in (folder / "state").rglob("*.pem")}
    for path in ("forwarder.toml", "srs.secrets", "rules/example.org.rules"):
        (folder / path).unlink()
    assert init(folder).exit_code == 0
    assert {path: path.read_bytes() for path in (folder / "state").rglob("*.pem")} == before


def test_a_key_that_cannot_be_made_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rotation.make

    def full(keys: Path, new: rotation.NewKey, *others: object) -> object:
        if new.domain == "example.com":
            raise KeysError("No space left on device")
        return real(keys, new, *others)  # type: ignore[arg-type]

    monkeypatch.setattr("forwarder.cli.init.make", full)
    result = init(folder, "--domain", "example.com")
    assert result.exit_code == 1
    assert "nothing was written: No space left on device" in result.output
    assert contents(folder) == {}


def test_one_spf_record_where_the_srs_domain_is_the_host(folder: Path) -> None:
    output = init(folder, "--hostname", "mx.example.org", "--srs-domain", "mx.example.org").output
    assert sum("v=spf1" in record[2] for record in published(output)) == 1


def test_several_domains(folder: Path) -> None:
    result = init(folder, "--domain", "Bücher.example", "--domain", "EXAMPLE.org.", "--domain", "example.net")
    assert result.exit_code == 0
    assert sorted(path.name for path in (folder / "rules").iterdir()) == [
        "example.net.rules",
        "example.org.rules",
        "xn--bcher-kva.example.rules",
    ]
    text = (folder / "rules" / "xn--bcher-kva.example.rules").read_text(encoding="utf-8")
    assert "bücher.example" in text
    assert "[xn--bcher-kva.example]" in text
    assert run("config", "check", "--config", str(folder / "forwarder.toml")).exit_code == 0


def test_the_second_time_it_refuses(folder: Path) -> None:
    init(folder)
    before = contents(folder)
    result = init(folder, to="you@gmail.com")
    assert result.exit_code == 1
    names = [folder / "forwarder.toml", folder / "rules" / "example.org.rules", folder / "srs.secrets"]
    assert result.stderr == (
        f"Error: nothing was written, as this exists already: {', '.join(str(name) for name in names)}\n"
    )
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["forwarder.toml", "rules/example.org.rules", "srs.secrets"])
def test_one_file_in_the_way_keeps_all_from_being_written(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")
    result = init(folder)
    assert result.exit_code == 1
    assert f"nothing was written, as this exists already: {path}\n" in result.output
    assert contents(folder) == {}
    assert path.is_symlink()


def test_a_failure_half_way_leaves_nothing(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "run").write_text("in the way")
    assert init(folder).exit_code == 1
    assert list(contents(folder)) == [str(folder / "run")]


def test_a_write_that_fails_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, mode: int) -> None:
        if mode == 0o600:  # the last file
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    result = init(folder)
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert contents(folder) == {}


def test_rules_of_other_domains_stay(folder: Path) -> None:
    (folder / "rules").mkdir(parents=True)
    (folder / "rules" / "other.rules").write_text("[example.com]\n* -> me@gmail.com\n")
    assert init(folder).exit_code == 0
    assert (folder / "rules" / "other.rules").read_text() == "[example.com]\n* -> me@gmail.com\n"


LOOP = "comes to this gateway, so that it would go round in a loop"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"domain": "example"}, "--domain: 'example': expected a domain name such as \"example.org\""),
        ({"domain": "exa mple.org"}, "--domain: 'exa mple.org': expected a domain name such as \"example.org\""),
        ({"domain": "../../etc.org"}, "--domain: '../../etc.org': expected a domain name such as \"example.org\""),
        ({"domain": "192.0.2.1"}, "--domain: '192.0.2.1': expected a domain name such as \"example.org\""),
        ({"to": "me"}, "--to: 'me': expected a mail address such as \"me@example.com\" (an address needs an @ and a"),
        ({"to": "me@x\n* -> you@x"}, "--to: 'me@x\\n* -> you@x': expected a mail address"),
        ({"to": "me@example.org"}, f"--to: me@example.org: expected an inbox elsewhere: mail for example.org {LOOP}"),
        ({"to": "me@EXAMPLE.org."}, f"--to: me@example.org: expected an inbox elsewhere: mail for example.org {LOOP}"),
        (
            {"to": "me@fwd.example.org"},
            f"--to: me@fwd.example.org: expected an inbox elsewhere: mail for fwd.example.org {LOOP}",
        ),
        (
            {"to": "me@mx1.example.org"},
            f"--to: me@mx1.example.org: expected an inbox elsewhere: mail for mx1.example.org {LOOP}",
        ),
        (
            {"to": "*@gmail.com"},
            "--to: *@gmail.com: expected an address that rules can name: it means something else there",
        ),
        ({"to": "a*@gmail.com"}, "--to: a*@gmail.com: expected an address that rules can name: a target has no wild"),
    ],
)
def test_names_that_cannot_be_used(folder: Path, arguments: dict[str, str], expected: str) -> None:
    result = init(folder, **arguments)
    assert result.exit_code == 2
    assert f"Invalid value for {expected}" in result.stderr
    assert not folder.exists()


def test_a_host_name_must_be_one(folder: Path) -> None:
    result = init(folder, "--hostname", "mx_1.example.org")
    assert result.exit_code == 2
    assert "--hostname: 'mx_1.example.org': expected a full host name" in result.stderr


def test_wrong_use() -> None:
    assert run("init").exit_code == 2
    assert run("init", "--domain", "example.org").exit_code == 2


def test_folders_can_be_entered_by_the_service_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert init(tmp_path / "f").exit_code == 0
    finally:
        os.umask(before)
    modes = {folder.name: folder.stat().st_mode & 0o777 for folder in (tmp_path / "f").iterdir() if folder.is_dir()}
    assert modes == {"rules": 0o755, "state": 0o700, "run": 0o755}
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o755
