import os
from pathlib import Path

import pytest

from forwarder.ops import rulefiles
from forwarder.ops.rulefiles import RuleFilesError, read_rules


def problems(path: Path) -> list[str]:
    with pytest.raises(RuleFilesError) as caught:
        read_rules(path)
    return [problem.replace(str(path), "PATH") for problem in caught.value.problems]


def test_a_file_of_any_name(tmp_path: Path) -> None:
    file = tmp_path / "forwarding"
    file.write_bytes("[bücher.example]\r\n".encode())
    assert read_rules(file) == ((str(file), "[bücher.example]\r\n"),)


def test_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("20.rules", "10.rules", "B.rules", "notes.txt", ".#10.rules", "10.rules~"):
        (tmp_path / name).write_text(name)
    (tmp_path / "sub").mkdir()
    assert [text for _, text in read_rules(tmp_path)] == ["10.rules", "20.rules", "B.rules"]


def test_missing(tmp_path: Path) -> None:
    assert problems(tmp_path / "none") == ["PATH: no such file or directory"]


def test_an_empty_folder_is_not_an_empty_set_of_rules(tmp_path: Path) -> None:
    (tmp_path / "readme").write_text("")
    assert problems(tmp_path) == ["PATH: there is no file *.rules in this folder"]


def test_all_problems_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.rules").write_bytes(b"[a.org]\n\xc3\xa4 # \xe4\n")
    (tmp_path / "b.rules").mkdir()
    (tmp_path / "c.rules").symlink_to(tmp_path / "gone")
    assert problems(tmp_path) == [
        "PATH/a.rules:2:5: not UTF-8 from here on",
        "PATH/b.rules: is no regular file",
        "PATH/c.rules: no such file or directory",
    ]


def test_a_pipe_does_not_keep_us_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rules")
    assert problems(tmp_path / "a.rules") == ["PATH: is no regular file"]


def test_what_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.rules"
    file.write_text("")
    file.chmod(0o666)
    assert problems(file) == ["PATH: anybody may write to this file (chmod o-w)"]
    file.chmod(0o664)
    assert read_rules(file)
    tmp_path.chmod(0o777)
    assert problems(tmp_path) == ["PATH: anybody may add files to this folder (chmod o-w)"]


def test_the_size_of_all_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rulefiles, "MAX_SIZE", 1 << 20)
    (tmp_path / "a.rules").write_bytes(b"#" * (1 << 19))
    (tmp_path / "b.rules").write_bytes(b"#" * (1 << 19))
    assert len(read_rules(tmp_path)) == 2
    (tmp_path / "c.rules").write_bytes(b"#")
    assert problems(tmp_path) == ["PATH/c.rules: the rules are larger than 1 MB"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "a.rules"
    file.write_text("")
    file.chmod(0)
    assert problems(file) == ["PATH: permission denied"]
