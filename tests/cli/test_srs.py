import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from forwarder.cli import main
from forwarder.model.address import Address
from forwarder.rewrite.srs import Srs
from tests.fakes import FakeClock

SECRET = b"a secret of sixteen and more"


TODAY = int(FakeClock().now().timestamp()) // 86_400


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forwarder.cli.srs.SystemClock", FakeClock)


def made(age: int = 0, secret: bytes = SECRET) -> str:
    return str(Srs("fwd.example.org", [secret], 21).encode(Address("alice", "b.example"), TODAY - age))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["srs", *map(str, arguments)])


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    file = tmp_path / "srs.secrets"
    file.write_bytes(SECRET + b"\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def config(tmp_path: Path, secrets: Path) -> Path:
    file = tmp_path / "forwarder.toml"
    file.write_text(
        'hostname = "mx1.example.org"\npostmaster = "me@gmail.com"\n'
        f'rules = "{tmp_path}"\nstate_dir = "{tmp_path}"\n'
        '[srs]\ndomain = "fwd.example.org"\nmax_age = "30d"\n'
    )
    return file


def test_encodes_and_decodes_without_a_configuration(secrets: Path) -> None:
    options = ("--domain", "fwd.example.org", "--secrets", secrets)
    encoded = run("encode", "alice@b.example", *options)
    assert (encoded.exit_code, encoded.stdout) == (0, made() + "\n")
    decoded = run("decode", encoded.stdout.strip(), *options)
    assert (decoded.exit_code, decoded.stdout) == (0, "alice@b.example\nmade today\n")


def test_takes_all_from_the_configuration(config: Path) -> None:
    assert run("encode", "alice@b.example", "--config", config).stdout == made() + "\n"
    assert run("decode", made(30), "--config", config).stdout == "alice@b.example\nmade 30 days ago\n"
    assert "expired" in run("decode", made(31), "--config", config).stderr


@pytest.mark.parametrize(("age", "words"), [(-1, "made tomorrow"), (1, "made 1 day ago\n"), (5, "made 5 days ago\n")])
def test_tells_the_age(config: Path, age: int, words: str) -> None:
    assert words in run("decode", made(age), "--config", config).stdout


def test_tells_all_as_json(config: Path) -> None:
    encoded = run("encode", "Alice@B.example", "--json", "--config", config)
    assert json.loads(encoded.stdout)["sender"] == "Alice@b.example"
    decoded = run("decode", made(2), "--json", "--config", config)
    assert json.loads(decoded.stdout) == {"address": made(2), "sender": "alice@b.example", "age_days": 2}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("decode", made(secret=b"another")), "not genuine"),
        (("decode", made(22), "--max-age", "21"), "expired"),
        (("decode", made(-2)), "future"),
        (("decode", "alice@fwd.example.org"), "not an SRS address"),
        (("decode", "SRS0=x@fwd.example.org"), "incomplete"),
        (("decode", "nonsense"), "needs an @"),
        (("encode", "a\r\nb@c"), "malformed"),
        (("encode", "a" * 250 + "@c"), "254"),
    ],
)
def test_says_why_not_and_exits_with_1(config: Path, arguments: tuple[str, ...], reason: str) -> None:
    refused = run(*arguments, "--config", config)
    assert refused.exit_code == 1
    assert reason in refused.stderr
    assert refused.stdout == ""
    as_json = run(*arguments, "--config", config, "--json")
    assert as_json.exit_code == 1
    assert reason in json.loads(as_json.stdout)["error"]


def test_says_when_secrets_cannot_be_had(secrets: Path) -> None:
    secrets.chmod(0o644)
    refused = run("encode", "a@b", "--domain", "fwd.example.org", "--secrets", secrets)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert str(secrets) in refused.stderr
    assert SECRET.decode() not in refused.output


def test_says_when_the_domain_is_none(secrets: Path) -> None:
    assert "domain" in run("encode", "a@b", "--domain", "a..b", "--secrets", secrets).stderr


@pytest.mark.parametrize("arguments", [("--domain", "fwd.example.org"), ("--secrets", "file")])
def test_domain_and_secrets_go_together(arguments: tuple[str, ...]) -> None:
    wrong = run("encode", "a@b", *arguments)
    assert wrong.exit_code == 2
    assert "go together" in wrong.stderr


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    missing = run("encode", "a@b", "--config", tmp_path / "none.toml")
    assert missing.exit_code == 1
    assert "none.toml" in missing.stderr
