"""Files of secrets: who may read them, what stands in them, and that nothing of it is told."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forwarder.ops.secrets import SecretError, password, read_secret, srs_secrets

NEW, OLD = b"correct-horse-battery-staple", b"0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "srs.secrets"


def write(path: Path, octets: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(octets)
    path.chmod(mode)
    return path


def refusal(path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SecretError) as caught:
        srs_secrets(path, environ or {})
    return str(caught.value).removeprefix(f"{path}: ")


def test_one_secret_a_line(path: Path) -> None:
    write(path, b"# the new one\r\n\n  " + NEW + b" \r\n\t# the old one\n" + OLD)
    assert srs_secrets(path, {}) == (NEW, OLD)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", "expected at least one secret, on a line of its own"),
        (b"# nothing\n\n", "expected at least one secret, on a line of its own"),
        (NEW + b"\n" + OLD[:15], "line 2: expected a secret of at least 16 characters"),
        (NEW + b"\n#\n" + NEW, "line 3: expected each secret once: this one stands further up"),
        (b"x" * 65_537, "expected at most 65536 octets"),
    ],
)
def test_wrong_contents(path: Path, octets: bytes, expected: str) -> None:
    assert refusal(write(path, octets)) == expected


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_file_that_others_can_use(path: Path, mode: int) -> None:
    expected = f"expected a file that its owner alone can read (its mode is {mode:04o}): chmod 600"
    assert refusal(write(path, NEW, mode)) == expected


def test_a_file_that_cannot_be_written_will_do(path: Path) -> None:
    assert srs_secrets(write(path, NEW, 0o400), {}) == (NEW,)


def test_somebody_elses_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, NEW)
    if os.geteuid() == 0:
        os.chown(path, 12_345, -1)
        owner = 12_345
    else:
        owner = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert refusal(path) == f"expected a file of root's or of the user who runs this (its owner is user {owner})"


def test_no_file(path: Path) -> None:
    assert refusal(path) == "expected a file that can be read: No such file or directory"


def test_a_symbolic_link(path: Path) -> None:
    path.symlink_to(write(path.with_name("other"), NEW))
    assert refusal(path) == "expected a file that can be read: it is a symbolic link"


def test_a_folder_and_a_pipe(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    assert refusal(path) == "expected a regular file"
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SecretError, match="expected a regular file"):
        srs_secrets(tmp_path / "pipe", {})


def test_a_credential_comes_first(path: Path, tmp_path: Path) -> None:
    write(path, NEW)
    folder = tmp_path / "credentials"
    folder.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(folder)}
    assert srs_secrets(path, environ) == (NEW,)
    write(folder / path.name, OLD, 0o440)  # systemd gives the service's group access
    assert srs_secrets(path, environ) == (OLD,)


def test_a_broken_credential_is_not_passed_over(path: Path, tmp_path: Path) -> None:
    write(path, NEW)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / path.name).symlink_to(tmp_path / "nothing")
    with pytest.raises(SecretError, match=r"credentials/srs\.secrets: expected a file that can be read"):
        srs_secrets(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})


@pytest.mark.parametrize("octets", [b"hunter2", b"hunter2\n", b"hunter2\r\n"])
def test_password(path: Path, octets: bytes) -> None:
    assert password(write(path, octets), {}) == b"hunter2"


@pytest.mark.parametrize("octets", [b"", b"\n", b"two\nlines\n", b"nul\0"])
def test_no_password(path: Path, octets: bytes) -> None:
    with pytest.raises(SecretError, match="expected one line, the password"):
        password(write(path, octets), {})


def test_read_secret_gives_the_octets(path: Path) -> None:
    assert read_secret(write(path, b"\x00\xff\n"), {}) == b"\x00\xff\n"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the file is written anew
@given(st.binary(max_size=200) | st.lists(st.sampled_from([NEW, OLD, b"short", b"#", b""])).map(b"\n".join))
def test_any_octets_are_secrets_or_refused_without_being_told(path: Path, octets: bytes) -> None:
    write(path, octets)
    try:
        found = srs_secrets(path, {})
    except SecretError as error:
        assert all(line.decode("latin-1") not in str(error) for line in octets.split() if len(line) > 8)
    else:
        assert found
        assert all(len(secret) >= 16 and secret in octets for secret in found)
