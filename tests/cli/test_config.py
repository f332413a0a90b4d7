"""`forwarder config check` and `config show`."""

import json
import os
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner, Result

from forwarder.cli import main
from forwarder.config import load, parse

SECRET = "correct-horse-battery-staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installation in which everything is right."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "a.rules").write_text("[example.org]\n* -> me@gmail.com\n")
    (tmp_path / "state").mkdir()
    secret = tmp_path / "state" / "srs.secrets"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    configure(tmp_path)
    return tmp_path


def configure(folder: Path, more: str = "") -> Path:
    path = folder / "forwarder.toml"
    path.write_text(
        f"""
        hostname = "mx1.example.org"
        postmaster = "me@gmail.com"
        rules = "{folder}/rules"
        state_dir = "{folder}/state"
        run_dir = "{folder}/run"
        {more}
        """,
        encoding="utf-8",
    )
    return path


def run(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    clean: dict[str, str | None] = {"FORWARDER_CONFIG": None, "CREDENTIALS_DIRECTORY": None}
    return CliRunner().invoke(main, ["config", *arguments], env=clean | (environ or {}))


def check(folder: Path) -> list[str]:
    """Check an installation with something wrong; give what is told of it."""
    path = folder / "forwarder.toml"
    result = run("check", "--config", str(path))
    assert result.exit_code == 1
    assert not isinstance(result.exception, Exception)
    assert SECRET not in result.output
    lines = result.stdout.splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_a_good_installation(folder: Path) -> None:
    path = folder / "forwarder.toml"
    result = run("check", "--config", str(path))
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"{path}: fine: mx1.example.org listens at [::]:25, 0.0.0.0:25, rewrites senders to mx1.example.org"
    ]


def test_the_file_comes_from_the_environment(folder: Path) -> None:
    assert run("check", environ={"FORWARDER_CONFIG": str(folder / "forwarder.toml")}).exit_code == 0
    assert "hostname" in run("show", environ={"FORWARDER_CONFIG": str(folder / "forwarder.toml")}).output


def test_without_a_file() -> None:
    result = run("check", "--config", "/nowhere/forwarder.toml")
    assert result.exit_code == 1
    assert result.output == "/nowhere/forwarder.toml: cannot be read: No such file or directory\n"


def test_wrong_keys_are_all_told(folder: Path) -> None:
    configure(folder, '[delivery]\nexpires = "5d"\nport = "smtp"')
    assert check(folder) == [
        'delivery.expires: "5d": unknown key; did you mean delivery.expire?',
        'delivery.port: "smtp": expected a whole number from 1 to 65535',
    ]


def test_all_that_is_wrong_with_files_is_told_at_once(folder: Path) -> None:
    (folder / "state" / "srs.secrets").unlink()
    configure(folder, '[tls]\ncertificate = "c.pem"\nkey = "k.pem"\n[delivery]\nsmarthost = "smtp://me@mail.example"')
    (folder / "run").write_text("")
    (folder / "run").chmod(0o700)
    assert check(folder) == [
        "delivery.smarthost: not supported yet: remove it, mail goes to the MX of its domain",
        f"srs.secrets: {folder}/state/srs.secrets: expected a file that can be read: No such file or directory",
        "delivery.smarthost_password: "
        f"{folder}/state/smarthost.password: expected a file that can be read: No such file or directory",
        f'tls.certificate: "{folder}/state/c.pem": expected a file that can be read: No such file or directory',
        f'tls.key: "{folder}/state/k.pem": expected a file that can be read: No such file or directory',
        f'run_dir: "{folder}/run": expected a folder that user {os.geteuid()} may write to, or create: '
        f'"{folder}/run" is not one',
    ]


def test_every_fault_of_the_rules_is_told(folder: Path) -> None:
    rules = folder / "rules" / "a.rules"
    rules.write_text("[example.org]\na -> b\n* -> me@gmail.com\n* -> you@gmail.com\n")
    lines = check(folder)
    assert [line.split(": ")[:2] for line in lines] == [["rules", f"{rules}:2:6"], ["rules", f"{rules}:4:1"]]


def test_rules_that_come_back_to_the_postmaster_of_this_place(folder: Path) -> None:
    path = folder / "forwarder.toml"
    path.write_text(path.read_text().replace("me@gmail.com", "postmaster@example.org"))
    (folder / "rules" / "a.rules").write_text("[example.org]\nme -> me@gmail.com\n")
    assert all(line.startswith("rules: ") for line in check(folder))


def test_no_rules(folder: Path) -> None:
    (folder / "rules" / "a.rules").unlink()
    assert check(folder) == [f"rules: {folder}/rules: there is no file *.rules in this folder"]


def test_folders_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder)
    assert check(folder) == [
        f'run_dir: "{folder}/run": expected a folder that user {os.geteuid()} may write to, or create: '
        f'"{folder}" is not one'
    ]


def test_secrets_that_others_can_read(folder: Path) -> None:
    (folder / "state" / "srs.secrets").chmod(0o644)
    assert check(folder) == [
        f"srs.secrets: {folder}/state/srs.secrets: "
        "expected a file that its owner alone can read (its mode is 0644): chmod 600"
    ]


def test_a_key_that_cannot_sign(folder: Path) -> None:
    place = folder / "state" / "keys" / "example.org"
    place.mkdir(mode=0o700, parents=True)
    place.parent.chmod(0o700)
    key = place / "s1.pem"
    key.touch(mode=0o600)
    (line,) = check(folder)
    assert line.startswith(f"dkim.keys: {key}: it is no private key in PEM form")
    path = configure(folder, '[dkim]\nsign = false\n[arc]\nseal = false\n[rewrite]\nfrom = "never"')
    assert run("check", "--config", str(path)).exit_code == 0  # nobody needs it


def test_a_smarthost_without_a_login_needs_no_password(folder: Path) -> None:
    path = configure(folder, '[delivery]\nsmarthost = "smtp://mail.example"')
    assert "smarthost_password" not in run("check", "--config", str(path)).output


def test_a_secret_as_a_credential(folder: Path) -> None:
    (folder / "state" / "srs.secrets").rename(folder / "srs.secrets")
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert run("check", "--config", str(folder / "forwarder.toml"), environ=environ).exit_code == 0


class TestCertificate:
    """`[tls]`."""

    @pytest.fixture
    def pair(self, folder: Path) -> trustme.LeafCert:
        pair = trustme.CA().issue_cert("mx1.example.org")
        self.put(folder, pair, pair)
        configure(folder, '[tls]\ncertificate = "c.pem"\nkey = "k.pem"')
        return pair

    def put(self, folder: Path, pair: trustme.LeafCert, key: trustme.LeafCert) -> None:
        (folder / "state" / "c.pem").write_bytes(b"".join(blob.bytes() for blob in pair.cert_chain_pems))
        (folder / "state" / "k.pem").write_bytes(key.private_key_pem.bytes())
        (folder / "state" / "k.pem").chmod(0o600)

    def test_fine(self, folder: Path, pair: trustme.LeafCert) -> None:
        assert run("check", "--config", str(folder / "forwarder.toml")).exit_code == 0

    def test_of_another_key(self, folder: Path, pair: trustme.LeafCert) -> None:
        self.put(folder, pair, trustme.CA().issue_cert("mx1.example.org"))
        (line,) = check(folder)
        expected = f'expected a PEM certificate that fits "{folder}/state/k.pem", neither with a password: '
        assert line.startswith(f'tls.certificate: "{folder}/state/c.pem": {expected}')
        assert "MISMATCH" in line.upper()

    def test_no_certificate_at_all(self, folder: Path, pair: trustme.LeafCert) -> None:
        (folder / "state" / "c.pem").write_text("hello")
        (line,) = check(folder)
        assert line.startswith(f'tls.certificate: "{folder}/state/c.pem": expected a PEM certificate')

    def test_a_key_that_everybody_can_read(self, folder: Path, pair: trustme.LeafCert) -> None:
        (folder / "state" / "k.pem").chmod(0o644)
        assert check(folder) == [
            f'tls.key: "{folder}/state/k.pem": expected a file that not everybody can read: chmod 640'
        ]


def test_show_reads_back(folder: Path) -> None:
    path = configure(folder, '[delivery.routes]\n"bücher.example" = "[192.0.2.9]:25"')
    result = run("show", "--config", str(path))
    assert result.exit_code == 0
    assert parse(result.output, "shown") == load(path)
    assert SECRET not in result.output


def test_show_as_json(folder: Path) -> None:
    path = configure(folder, '[delivery]\nsmarthost = "smtp://me@mail.example"')
    result = run("show", "--json", "--config", str(path))
    tree = json.loads(result.output)
    assert tree["hostname"] == "mx1.example.org"
    assert tree["delivery"]["cutthrough_deadline"] == "25s"
    assert tree["delivery"]["smarthost"] == "smtp://me@[mail.example]:587"
    assert tree["srs"]["secrets"] == f"{folder}/state/srs.secrets"
    assert SECRET not in result.output


def test_show_of_a_wrong_configuration(folder: Path) -> None:
    path = configure(folder, "worker = 1")
    result = run("show", "--config", str(path))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"{path}: worker: 1: unknown key; did you mean workers?\n"


def test_wrong_use() -> None:
    assert run("check", "--no-such-option").exit_code == 2
    assert run("sing").exit_code == 2
