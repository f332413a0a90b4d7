"""Traces are read exactly: split calls, shared descriptors, and a refusal of what the model cannot follow."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.powercut import strace
from tests.powercut.recorder import (
    ROOT,
    Made,
    Moved,
    Operation,
    Said,
    Sized,
    Synced,
    Tree,
    Unsupported,
    Written,
    interpret,
)

FOLDER = Path("/srv/disk")


def hexed(text: str | bytes) -> str:
    octets = text.encode() if isinstance(text, str) else text
    return '"' + "".join(f"\\x{octet:02x}" for octet in octets) + '"'


def operations(trace: str, before: Tree | None = None) -> list[Operation]:
    return interpret(trace.strip().splitlines(), FOLDER, Path("/srv"), before or Tree()).operations


def doings(trace: str, before: Tree | None = None) -> list[object]:
    return [operation.doing for operation in operations(trace, before)]


def opened(name: str, flags: str = "O_WRONLY|O_CREAT", number: int = 3) -> str:
    return f"7 openat(AT_FDCWD, {hexed(f'{FOLDER}/{name}')}, {flags}, 0600) = {number}\n"


@given(st.binary(max_size=300))
def test_octets_come_back_as_they_were_written(octets: bytes) -> None:
    assert strace.octets(hexed(octets)) == octets


def test_a_split_call_lasts_from_its_entry_to_its_return() -> None:
    trace = opened("a") + (
        f"7 write(3, {hexed('one')}, 3) = 3\n"
        "8 fsync(3 <unfinished ...>\n"
        f"7 write(3, {hexed('two')}, 3 <unfinished ...>\n"
        "8 <... fsync resumed>)              = 0\n"
        "7 <... write resumed>)              = 3\n"
    )
    made, one, sync, two = operations("7 clone3({flags=CLONE_FILES|CLONE_FS}, 88) = 8\n" + trace)
    assert made.doing == Made(ROOT, "a", 1)
    assert (one.doing, two.doing) == (Written(1, 0, b"one"), Written(1, 3, b"two"))
    assert sync.doing == Synced(1)
    assert one.end < sync.begin < two.begin < sync.end < two.end


def test_a_child_may_be_seen_before_its_birth_returns() -> None:
    trace = opened("a") + (
        "7 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES, exit_signal=0} <unfinished ...>\n"
        f"9 write(3, {hexed('x')}, 1) = 1\n"
        "7 <... clone3 resumed> => {parent_tid=[9]}, 88) = 9\n"
        f"7 write(3, {hexed('y')}, 1) = 1\n"
    )
    assert doings(trace)[1:] == [Written(1, 0, b"x"), Written(1, 1, b"y")]


def test_threads_share_descriptors_and_children_do_not() -> None:
    close = "9 close(3) = 0\n" + f"7 write(3, {hexed('x')}, 1) = 1\n"
    assert len(doings(opened("a") + "7 clone(flags=CLONE_FILES) = 9\n" + close)) == 1
    assert len(doings(opened("a") + "7 clone(flags=SIGCHLD) = 9\n" + close)) == 2


def test_a_closed_number_is_free_before_close_returns() -> None:
    trace = opened("a") + (
        "7 clone(flags=CLONE_FILES) = 9\n"
        "7 close(3 <unfinished ...>\n" + opened("b").replace("7 ", "9 ", 1) + "7 <... close resumed>) = 0\n"
        f"9 write(3, {hexed('x')}, 1) = 1\n"
    )
    assert doings(trace)[-1] == Written(2, 0, b"x")


def test_a_program_that_is_executed_keeps_what_is_not_closed_on_exec() -> None:
    execute = f"7 execve({hexed('/bin/true')}, [], 0x7ffd) = 0\n7 write(3, {hexed('x')}, 1) = 1\n"
    assert doings(opened("a") + execute)[1:] == [Written(1, 0, b"x")]
    assert doings(opened("a", "O_WRONLY|O_CREAT|O_CLOEXEC") + execute)[1:] == []


def test_duplicates_share_one_offset() -> None:
    trace = opened("a") + f"7 dup(3) = 4\n7 write(3, {hexed('ab')}, 2) = 2\n7 write(4, {hexed('c')}, 1) = 1\n"
    assert doings(trace)[-1] == Written(1, 2, b"c")


def test_reads_and_seeks_move_the_offset() -> None:
    trace = opened("a", "O_RDWR|O_CREAT") + (
        f"7 write(3, {hexed('abcd')}, 4) = 4\n"
        "7 lseek(3, 0, SEEK_SET) = 0\n"
        "7 read(0x3, 0x7f00, 0x2) = 0x2\n"
        f"7 write(3, {hexed('x')}, 1) = 1\n"
    )
    assert doings(trace)[-1] == Written(1, 2, b"x")


def test_every_way_to_write_is_known() -> None:
    trace = opened("a", "O_RDWR|O_CREAT") + (
        f"7 writev(3, [{{iov_base={hexed('ab')}, iov_len=2}}, {{iov_base={hexed('c')}, iov_len=1}}], 2) = 3\n"
        f"7 pwrite64(3, {hexed('xyz')}, 3, 10) = 2\n"
        f"7 pwritev(3, [{{iov_base={hexed('q')}, iov_len=1}}], 1, 20) = 1\n"
        "7 ftruncate(3, 5) = 0\n7 fallocate(3, 0, 0, 30) = 0\n7 fallocate(3, FALLOC_FL_KEEP_SIZE, 0, 99) = 0\n"
    )
    written = [Written(1, 0, b"abc"), Written(1, 10, b"xy"), Written(1, 20, b"q")]
    assert doings(trace)[1:] == [*written, Sized(1, 5), Sized(1, 30, grows=True)]


def test_appending_and_truncating_on_open() -> None:
    before = Tree({ROOT: {"a": 1}}, {1: bytearray(b"12345")}, {1: 0o600})
    appended = opened("a", "O_WRONLY|O_APPEND") + f"7 write(3, {hexed('x')}, 1) = 1\n"
    assert doings(appended, before) == [Written(1, 5, b"x")]
    assert doings(opened("a", "O_WRONLY|O_TRUNC"), before) == [Sized(1, 0)]


def test_names_relative_to_a_folder_and_to_the_working_directory() -> None:
    trace = (
        f"7 mkdir({hexed('disk/sub')}, 0700) = 0\n"
        f"7 openat(AT_FDCWD, {hexed('disk/sub')}, O_RDONLY|O_DIRECTORY) = 4\n"
        f"7 openat(4, {hexed('a')}, O_WRONLY|O_CREAT, 0600) = 5\n"
        f"7 chdir({hexed('disk')}) = 0\n"
        f"7 renameat2(4, {hexed('a')}, AT_FDCWD, {hexed('b')}, RENAME_NOREPLACE) = 0\n"
        "7 fsync(4) = 0\n"
    )
    assert doings(trace) == [Made(ROOT, "sub", 1), Made(1, "a", 2), Moved(1, "a", ROOT, "b", 2), Synced(1)]


def test_failed_calls_and_other_folders_do_not_count() -> None:
    trace = (
        f"7 openat(AT_FDCWD, {hexed('/srv/diskette/a')}, O_WRONLY|O_CREAT, 0600) = 3\n"
        f"7 write(3, {hexed('x')}, 1) = 1\n"
        f"7 unlink({hexed(f'{FOLDER}/a')}) = -1 ENOENT (No such file or directory)\n"
    )
    assert doings(trace) == []


def test_promises_on_pipes_and_sockets() -> None:
    lines, line = "ACK one x\nnot me\nACK two\n", "ACK three\n"
    trace = f"7 write(1, {hexed(lines)}, 20) = 20\n7 sendto(5, {hexed(line)}, 10, 0, NULL, 0) = 10\n"
    assert doings(trace) == [Said("one x"), Said("two"), Said("three")]


@pytest.mark.parametrize(
    "line",
    [
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0) = 0x7f0000000000",
        "sendfile(3, 4, NULL, 100) = 100",
        "copy_file_range(4, NULL, 3, NULL, 100, 0) = 100",
        "fallocate(3, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 10) = 0",
        "sync() = 0",
        "io_uring_setup(8, {flags=0}) = 9",
        f"symlink({hexed('x')}, {hexed(f'{FOLDER}/link')}) = 0",
        f"rename({hexed(f'{FOLDER}/a')}, {hexed('/srv/elsewhere')}) = 0",
        f"write(3, {hexed('x')}..., 100) = 100",
        f"openat(AT_FDCWD, {hexed(f'{FOLDER}/never-made')}, O_RDONLY) = 5",
        f"openat(AT_FDCWD, {hexed(f'{FOLDER}/a')}, O_WRONLY|O_DSYNC) = 5",
    ],
)
def test_what_the_model_cannot_follow_is_refused(line: str) -> None:
    with pytest.raises((Unsupported, ValueError)):
        operations(opened("a") + "7 " + line)


def test_mapped_shm_files_are_left_out() -> None:
    trace = opened("db-shm", "O_RDWR|O_CREAT") + (
        "7 ftruncate(3, 32768) = 0\n7 mmap(NULL, 32768, PROT_READ|PROT_WRITE, MAP_SHARED, 3, 0) = 0x7f0000000000\n"
        f"7 unlink({hexed(f'{FOLDER}/db-shm')}) = 0\n"
    )
    assert doings(trace) == []
