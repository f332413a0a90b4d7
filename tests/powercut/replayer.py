"""What the disk may hold after a power cut at a given moment: pessimistic, but within what POSIX lets a disk do.

- fsync of a file makes durable what was written to it, and its size, before the fsync began; not its name.
- fsync of a folder makes its names durable, as they were when the fsync began.
- Whatever else was begun before the cut may be there or not. Of a write there may also be a beginning, or any of its
  sectors or pages, and the size without the octets (zeros). Octets outside of a write are never harmed.
- Names: what was done to one name is kept as a prefix, so each name is one that it had since it was last durable. A
  rename keeps the old or the new name. Where it goes from one folder to another, an fsync of the new one makes the new
  name durable and an fsync of the old one nothing; the old name may stay until the old folder's fsync.

Left out: the ordering that journals of real file systems give beyond this, so that nobody comes to rely on one of them.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from tests.powercut.recorder import (
    Data,
    Gone,
    Made,
    Moved,
    Names,
    Operation,
    Recording,
    Said,
    Sized,
    Synced,
    Tree,
    Written,
)

_SECTOR, _PAGE = 512, 4096


class Loss(Enum):
    """What becomes of that which is not durable at the cut."""

    NOTHING = "nothing"  # of it is kept
    RETURNED = "returned"  # what returned is kept: like kill -9, where the disk never loses
    EVERYTHING = "everything"  # is kept, also of what had only begun
    NAMES = "names"  # are kept, data and sizes are not
    SIZES = "sizes"  # and names are kept, the octets are zeros
    DATA = "data"  # and sizes are kept, names are not
    TORN = "torn"  # everything is kept, but the last write is torn
    PREFIX = "prefix"  # what came first is kept, up to a random point; the last write is torn
    MIXED = "mixed"  # a random choice, each write whole, torn or lost


_RANDOM = (Loss.TORN, Loss.PREFIX, Loss.MIXED)


@dataclass(frozen=True, slots=True)
class State:
    """Names one state: the first `cut` moments of the recording had come. `seed` matters where chance does."""

    cut: int
    loss: Loss
    seed: int

    def __str__(self) -> str:
        return f"--cut {self.cut} --loss {self.loss.value} --seed {self.seed}"


class Disk:
    """A disk that a recording is played onto, moment by moment, always forward."""

    def __init__(self, recording: Recording) -> None:
        operations = recording.operations
        self.moments = sorted({each.begin for each in operations} | {each.end for each in operations})
        self.said: list[str] = list(recording.promised)
        self._durable = recording.before.copy()
        _add_blank(self._durable, recording.blank)
        self._begins = sorted(operations, key=lambda each: each.begin)
        self._syncs = sorted((each for each in operations if isinstance(each.doing, Synced)), key=lambda each: each.end)
        self._begun = self._synced = 0
        self._now = -1
        self._pending: list[Operation] = []  # in the order of their begin

    def advance(self, cut: int) -> None:
        """Go on until the first `cut` moments have come."""
        until = self.moments[cut - 1] if cut else -1
        assert until >= self._now, "time goes forward"
        for sync in self._syncs[self._synced : bisect_right(self._syncs, until, key=lambda each: each.end)]:
            self._begin(sync.end)
            self._settle(sync)
            self._synced += 1
        self._begin(until)
        self._now = until

    def _begin(self, until: int) -> None:
        while self._begun < len(self._begins) and self._begins[self._begun].begin <= until:
            operation = self._begins[self._begun]
            self._begun += 1
            if isinstance(operation.doing, Said):
                self.said.append(operation.doing.words)
            elif not isinstance(operation.doing, Synced):
                self._pending.append(operation)

    def _settle(self, sync: Operation) -> None:
        assert isinstance(sync.doing, Synced)
        done = [each for each in self._pending if each.end < sync.begin]
        if sync.doing.file in self._durable.folders:
            settled = _closed(done, [each for each in done if _names_settled(each.doing, sync.doing.file)])
        else:
            settled = [each for each in done if isinstance(each.doing, Data) and each.doing.file == sync.doing.file]
        chosen = set(map(id, settled))
        rest: list[Operation] = []
        for operation in self._pending:
            if id(operation) not in chosen:
                rest.append(operation)
                continue
            self._durable.apply(_without_old_name(operation.doing, sync.doing.file))
            rest.extend(_old_name(operation, sync.doing.file))
        self._pending = rest

    def state(self, state: State) -> Tree:
        """Give what the disk may hold now; `state.cut` is how far it has come."""
        chance = random.Random(f"{state}")
        returned = [each for each in self._pending if each.end <= self._now]
        tree = self._durable.copy()
        for doing in _kept(state.loss, self._pending, returned, chance):
            tree.apply(doing)
        return tree

    @property
    def certain(self) -> bool:
        """Whether everything is durable, so that there is one state only."""
        return not self._pending


def states(cuts: int, *, seed: int, rounds: int = 1) -> Iterator[State]:
    """Give the states of all cuts from 0 to `cuts`, in order; what chance decides `rounds` times."""
    for cut in range(cuts + 1):
        for loss in Loss:
            for turn in range(rounds if loss in _RANDOM else 1):
                yield State(cut, loss, seed + turn)


def _add_blank(tree: Tree, blank: Tree) -> None:
    for number in blank.folders:
        tree.folders.setdefault(number, {})
    for number in blank.files:
        tree.files.setdefault(number, bytearray())


def _names_settled(doing: object, folder: int) -> bool:
    match doing:
        case Made(where) | Gone(where):
            return where == folder
        case Moved(_, _, new_folder):
            return new_folder == folder
    return False


def _keys(doing: object) -> set[tuple[int, str]]:
    match doing:
        case Made(folder, name) | Gone(folder, name):
            return {(folder, name)}
        case Moved(folder, name, new_folder, new_name):
            return {(folder, name), (new_folder, new_name)}
    return set()


def _closed(among: Sequence[Operation], chosen: Iterable[Operation]) -> list[Operation]:
    """Add to chosen operations on names what was done before to the same names."""
    wanted = set(map(id, chosen))
    names: set[tuple[int, str]] = set()
    found: list[Operation] = []
    for operation in reversed(among):
        keys = _keys(operation.doing)
        if id(operation) in wanted or keys & names:
            names |= keys
            found.append(operation)
    return found[::-1]


def _without_old_name(doing: Data | Names | Synced | Said, synced: int) -> Data | Names | Synced | Said:
    if isinstance(doing, Moved) and synced not in (doing.folder,) and doing.folder != doing.new_folder:
        return Made(doing.new_folder, doing.new_name, doing.file)
    return doing


def _old_name(operation: Operation, synced: int) -> list[Operation]:
    doing = operation.doing
    if isinstance(doing, Moved) and synced != doing.folder and doing.folder != doing.new_folder:
        return [Operation(operation.begin, operation.end, Gone(doing.folder, doing.name, doing.file))]
    return []


def _kept(
    loss: Loss, pending: Sequence[Operation], returned: Sequence[Operation], chance: random.Random
) -> Iterator[Data | Names]:
    match loss:
        case Loss.NOTHING:
            return
        case Loss.RETURNED:
            yield from map(_doing, returned)
        case Loss.EVERYTHING:
            yield from map(_doing, pending)
        case Loss.NAMES:
            yield from (doing for doing in map(_doing, pending) if isinstance(doing, Names))
        case Loss.DATA:
            yield from (doing for doing in map(_doing, pending) if isinstance(doing, Data))
        case Loss.SIZES:
            yield from map(_size_only, map(_doing, pending))
        case Loss.TORN:
            yield from _last_torn(pending, chance)
        case Loss.PREFIX:
            yield from _last_torn(pending[: chance.randint(0, len(pending))], chance)
        case Loss.MIXED:
            yield from _mixed(pending, chance)


def _doing(operation: Operation) -> Data | Names:
    assert isinstance(operation.doing, Data | Names)
    return operation.doing


def _size_only(doing: Data | Names) -> Data | Names:
    return Sized(doing.file, doing.offset + len(doing.octets), grows=True) if isinstance(doing, Written) else doing


def _last_torn(operations: Sequence[Operation], chance: random.Random) -> Iterator[Data | Names]:
    doings = list(map(_doing, operations))
    last = max((at for at, doing in enumerate(doings) if isinstance(doing, Written)), default=-1)
    for at, doing in enumerate(doings):
        if at == last and isinstance(doing, Written):
            yield from _torn(doing, chance)
        else:
            yield doing


def _mixed(pending: Sequence[Operation], chance: random.Random) -> Iterator[Data | Names]:
    likely = chance.choice((0.1, 0.5, 0.9))
    names = [each for each in pending if isinstance(each.doing, Names)]
    kept = set(map(id, _closed(names, [each for each in names if chance.random() < likely])))
    for operation in pending:
        doing = _doing(operation)
        if isinstance(doing, Names):
            if id(operation) in kept:
                yield doing
        elif chance.random() < likely:
            yield doing
        elif isinstance(doing, Written) and chance.random() < 0.5:
            yield from _torn(doing, chance)


def _torn(write: Written, chance: random.Random) -> Iterator[Data]:
    """Give a beginning of a write, or some of its sectors or pages with or without its size."""
    end = write.offset + len(write.octets)
    unit = chance.choice((0, _SECTOR, _PAGE))
    if unit == 0:
        yield Written(write.file, write.offset, write.octets[: chance.randrange(len(write.octets))])
        return
    if chance.random() < 0.5:
        yield Sized(write.file, end, grows=True)
    likely = chance.random()
    for start in range(write.offset - write.offset % unit, end, unit):
        first, last = max(start, write.offset), min(start + unit, end)
        if chance.random() < likely:
            yield Written(write.file, first, write.octets[first - write.offset : last - write.offset])
