"""The model of the disk: what a cut may leave, and what it may not."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tests.powercut.recorder import (
    ROOT,
    Doing,
    Gone,
    Made,
    Moved,
    Operation,
    Recording,
    Said,
    Sized,
    Synced,
    Tree,
    Written,
)
from tests.powercut.replayer import Disk, Loss, State

SUB = 9


def recording(*doings: Doing | tuple[int, int, Doing], before: Tree | None = None) -> Recording:
    """Make a run of operations one after the other, or with begin and end given."""
    operations = [
        Operation(*doing) if isinstance(doing, tuple) else Operation(10 * at, 10 * at + 5, doing)
        for at, doing in enumerate(doings)
    ]
    blank = Tree({ROOT: {}, SUB: {}}, {number: bytearray() for number in (1, 2)}, dict.fromkeys((1, 2, SUB), 0o700))
    return Recording(before or Tree(), blank, operations)


def trees(run: Recording, *, chances: int = 200) -> Iterator[Tree]:
    """Give states at the end of a run."""
    disk = Disk(run)
    disk.advance(len(disk.moments))
    for loss in Loss:
        for seed in range(chances if loss in (Loss.MIXED, Loss.PREFIX, Loss.TORN) else 1):
            yield disk.state(State(len(disk.moments), loss, seed))


def listings(run: Recording) -> set[tuple[tuple[str, int], ...]]:
    return {tuple(tree.paths()) for tree in trees(run)}


def contents(run: Recording) -> set[bytes]:
    return {bytes(tree.files[1]) for tree in trees(run)}


def test_a_written_file_may_be_there_absent_or_torn() -> None:
    pages = b"a" * 512 + b"b" * 512 + b"c" * 10
    found = contents(recording(Written(1, 0, pages)))
    assert {b"", pages, bytes(len(pages)), pages[:512] + bytes(522), pages[:512] + bytes(512) + b"c" * 10} <= found
    assert any(len(octets) % 512 and pages.startswith(octets) for octets in found - {pages})


def test_a_synced_file_is_whole_and_its_name_is_not_sure() -> None:
    run = recording(Made(ROOT, "a", 1), Written(1, 0, b"abc"), Synced(1))
    assert contents(run) == {b"abc"}
    assert listings(run) == {(), (("a", 1),)}


def test_a_synced_folder_has_its_names_and_not_what_is_in_the_files() -> None:
    run = recording(Made(ROOT, "a", 1), Written(1, 0, b"abc"), Synced(ROOT))
    assert listings(run) == {(("a", 1),)}
    assert {b"", b"abc"} <= contents(run)


def test_a_sync_counts_for_what_was_done_when_it_began() -> None:
    overtaken = recording((0, 1, Made(ROOT, "a", 1)), (2, 20, Written(1, 0, b"abc")), (10, 30, Synced(1)))
    assert b"" in contents(overtaken)
    assert contents(recording((2, 9, Written(1, 0, b"abc")), (10, 30, Synced(1)))) == {b"abc"}


def test_a_sync_counts_only_when_it_returned() -> None:
    run = recording((0, 1, Written(1, 0, b"abc")), (2, 30, Synced(1)), (10, 10, Said("early")))
    disk = Disk(run)
    disk.advance(disk.moments.index(10) + 1)
    assert disk.said == ["early"]
    assert disk.state(State(0, Loss.NOTHING, 0)).files[1] == b""
    disk.advance(len(disk.moments))
    assert disk.state(State(0, Loss.NOTHING, 0)).files[1] == b"abc"


def test_octets_around_a_write_are_never_harmed() -> None:
    before = Tree({ROOT: {"a": 1}}, {1: bytearray(b"x" * 3000)}, {1: 0o600})
    for octets in contents(recording(Written(1, 700, b"y" * 900), before=before)):
        assert octets[:700] == b"x" * 700
        assert octets[1600:] == b"x" * 1400


def test_a_truncation_may_be_lost() -> None:
    before = Tree({ROOT: {"a": 1}}, {1: bytearray(b"12345")}, {1: 0o600})
    assert contents(recording(Sized(1, 2), before=before)) == {b"12345", b"12"}


def test_a_rename_keeps_the_old_name_or_the_new_one() -> None:
    run = recording(Made(ROOT, "a", 1), Synced(ROOT), Moved(ROOT, "a", ROOT, "b", 1))
    assert listings(run) == {(("a", 1),), (("b", 1),)}


def test_a_rename_over_a_file_keeps_the_old_or_the_new_file() -> None:
    run = recording(Made(ROOT, "a", 1), Made(ROOT, "b", 2), Synced(ROOT), Moved(ROOT, "a", ROOT, "b", 1))
    assert listings(run) == {(("a", 1), ("b", 2)), (("b", 1),)}


def test_a_rename_between_folders_is_made_durable_by_the_new_folder() -> None:
    run: list[Doing] = [Made(ROOT, "s", SUB), Made(ROOT, "a", 1), Synced(ROOT), Moved(ROOT, "a", SUB, "b", 1)]
    before, both, after = (("a", 1), ("s", SUB)), (("a", 1), ("s", SUB), ("s/b", 1)), (("s", SUB), ("s/b", 1))
    assert listings(recording(*run)) == {before, after}
    assert listings(recording(*run, Synced(ROOT))) == {before, after}
    assert listings(recording(*run, Synced(SUB))) == {both, after}
    assert listings(recording(*run, Synced(SUB), Synced(ROOT))) == {after}


def test_a_file_is_never_lost_because_its_old_name_was_used_again() -> None:
    run: list[Doing] = [
        Made(ROOT, "s", SUB),
        Made(ROOT, "a", 1),
        Synced(ROOT),
        Moved(ROOT, "a", SUB, "b", 1),
        Made(ROOT, "a", 2),
    ]
    for listing in listings(recording(*run)) | listings(recording(*run, Synced(ROOT))):
        assert 1 in dict(listing).values()


def test_what_is_in_a_folder_without_a_name_is_lost() -> None:
    run = recording(Made(ROOT, "s", SUB), Made(SUB, "a", 1), Synced(SUB))
    assert listings(run) == {(), (("s", SUB), ("s/a", 1))}


def test_a_name_that_another_file_has_by_now_is_not_removed() -> None:
    tree = Tree({ROOT: {"a": 2}}, {2: bytearray()})
    tree.apply(Gone(ROOT, "a", 1))
    assert tree.folders == {ROOT: {"a": 2}}


def test_names_of_one_folder_may_be_lost_apart() -> None:
    run = recording(Made(ROOT, "a", 1), Made(ROOT, "b", 2))
    assert listings(run) == {(), (("a", 1),), (("b", 2),), (("a", 1), ("b", 2))}


def test_one_name_has_only_what_it_had() -> None:
    run = recording(Made(ROOT, "a", 1), Gone(ROOT, "a", 1), Made(ROOT, "a", 2))
    assert listings(run) == {(), (("a", 1),), (("a", 2),)}


steps = st.lists(
    st.sampled_from(
        [
            Made(ROOT, "a", 1),
            Moved(ROOT, "a", ROOT, "b", 1),
            Gone(ROOT, "b", 1),
            Written(1, 0, b"x" * 600),
            Written(1, 300, b"y" * 600),
            Sized(1, 400),
            Synced(1),
            Synced(ROOT),
        ]
    ),
    max_size=12,
)


@given(steps, st.sampled_from(Loss), st.integers(0, 1000))
def test_after_all_syncs_there_is_one_state(doings: list[Doing], loss: Loss, seed: int) -> None:
    run = recording(*doings, Synced(1), Synced(ROOT))
    disk = Disk(run)
    disk.advance(len(disk.moments))
    whole = Tree({ROOT: {}, SUB: {}}, {1: bytearray(), 2: bytearray()})
    for doing in doings:
        whole.apply(doing)
    found = disk.state(State(0, loss, seed))
    assert (found.folders, found.files) == (whole.folders, whole.files)
    assert disk.certain


@given(steps, st.integers(0, 1000))
def test_a_state_is_the_same_each_time(doings: list[Doing], seed: int) -> None:
    disk = Disk(recording(*doings))
    disk.advance(len(disk.moments))
    wanted = State(len(disk.moments), Loss.MIXED, seed)
    first, second = disk.state(wanted), disk.state(wanted)
    assert (first.folders, first.files) == (second.folders, second.files)
