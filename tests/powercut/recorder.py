"""Makes a list of operations on files and names out of a traced run, with the moments when each began and was done.

Only what lies under one folder matters; files there are known by numbers (`ROOT` is the folder), since names change.
What a program writes to standard output or a socket as lines `ACK ...` are its promises.

Left out: SQLite's `-shm` files, which are mapped and made anew after a crash; modes, owners and times (a file keeps the
mode that it was made with). What the model cannot follow raises `Unsupported` rather than being passed over: shared
writable mappings, symbolic links, copies inside the kernel, io_uring, `sync`. After the run the operations are applied
and compared with the folder, octet by octet, so that nothing can have been missed.
"""

import os
import pickle
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.powercut import strace
from tests.powercut.strace import Call

ROOT = 0
_APART = "-shm"
_PRIVATE = 0o700  # of modes only this is kept: it does not depend on a umask


class Unsupported(Exception):  # noqa: N818 - it says what is the matter
    """The program does what this model cannot follow."""


@dataclass(frozen=True, slots=True)
class Made:
    """A name for a file or folder: open, mkdir, link."""

    folder: int
    name: str
    file: int


@dataclass(frozen=True, slots=True)
class Gone:
    """A name that is removed, if it is still this file's."""

    folder: int
    name: str
    file: int


@dataclass(frozen=True, slots=True)
class Moved:
    """A rename within the file system; what had the new name loses it."""

    folder: int
    name: str
    new_folder: int
    new_name: str
    file: int


@dataclass(frozen=True, slots=True)
class Written:
    """Octets written; the file grows where they reach beyond its end."""

    file: int
    offset: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Sized:
    """A new size, with zeros where it grows; with `grows` only if the file is smaller."""

    file: int
    size: int
    grows: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """fsync or fdatasync of a file or a folder."""

    file: int


@dataclass(frozen=True, slots=True)
class Said:
    """A promise: the words behind `ACK`."""

    words: str


Names = Made | Gone | Moved
Data = Written | Sized
Doing = Names | Data | Synced | Said


@dataclass(frozen=True, slots=True)
class Operation:
    """Something done; it may have had its effect from `begin` on, and has had it at `end`."""

    begin: int
    end: int
    doing: Doing


@dataclass(slots=True)
class Tree:
    """Folders, files and their modes, all by number."""

    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: dict[int, bytearray] = field(default_factory=dict)
    modes: dict[int, int] = field(default_factory=dict)

    def apply(self, doing: Doing) -> None:
        """Let something have had its whole effect."""
        match doing:
            case Made(folder, name, file):
                self.folders[folder][name] = file
            case Gone(folder, name, file):
                self._remove(folder, name, file)
            case Moved(folder, name, new_folder, new_name, file):
                self._remove(folder, name, file)
                self.folders[new_folder][new_name] = file
            case Written(file, offset, octets):
                self.resize(file, max(len(self.files[file]), offset + len(octets)))
                self.files[file][offset : offset + len(octets)] = octets
            case Sized(file, size, grows):
                self.resize(file, max(size, len(self.files[file])) if grows else size)

    def resize(self, file: int, size: int) -> None:
        """Cut, or fill with zeros."""
        content = self.files[file]
        del content[size:]
        content.extend(bytes(size - len(content)))

    def _remove(self, folder: int, name: str, file: int) -> None:
        if self.folders[folder].get(name) == file:
            del self.folders[folder][name]

    def copy(self) -> "Tree":
        """Give one that changes apart from this one."""
        return Tree(
            {number: dict(names) for number, names in self.folders.items()},
            {number: bytearray(content) for number, content in self.files.items()},
            self.modes,
        )

    def paths(self, folder: int = ROOT, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Give what has a name, folders before what is in them."""
        for name, number in sorted(self.folders[folder].items()):
            yield prefix + name, number
            if number in self.folders:
                yield from self.paths(number, f"{prefix}{name}/")

    def write(self, into: Path) -> None:
        """Make a folder of it."""
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        written: dict[int, Path] = {}
        for path, number in self.paths():
            place = into / path
            if number in self.folders:
                place.mkdir(mode=0o700)
            elif number in written:
                place.hardlink_to(written[number])
            else:
                place.write_bytes(self.files[number])
                written[number] = place
            place.chmod(self.modes[number])


def read_tree(root: Path) -> Tree:
    """Read a folder from the disk."""
    tree = Tree()
    numbers: dict[int, int] = {}
    folders = {root: ROOT}
    for place in sorted(root.rglob("*")):
        about = place.lstat()
        if place.name.endswith(_APART):
            continue
        number = numbers.setdefault(about.st_ino, len(numbers) + 1)
        tree.folders[folders[place.parent]][place.name] = number
        tree.modes[number] = stat.S_IMODE(about.st_mode)
        if stat.S_ISDIR(about.st_mode):
            folders[place] = number
            tree.folders[number] = {}
        elif stat.S_ISREG(about.st_mode):
            tree.files[number] = bytearray(place.read_bytes())
        else:
            raise Unsupported(f"{place} is neither file nor folder")
    return tree


@dataclass(slots=True)
class Recording:
    """A run: what was on the disk before, and what was done. `operations` stand in the order of their begin.

    `blank` has the folders and files that appear in the run, by number, all empty. `promised` is what had been said
    before it.
    """

    before: Tree
    blank: Tree
    operations: list[Operation]
    promised: list[str] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Keep it in a file, to be replayed again."""
        path.write_bytes(pickle.dumps(self))


def load(path: Path) -> Recording:
    """Read what `save` wrote."""
    recording = pickle.loads(path.read_bytes())
    assert isinstance(recording, Recording)
    return recording


def record(command: Sequence[str], folder: Path, trace: Path, *, timeout: float = 120) -> Recording:
    """Run a program that works in `folder`, which exists; `trace` is a file to write the trace to, outside of it."""
    before = read_tree(folder)
    strace.run(command, trace, timeout=timeout)
    with trace.open(encoding="ascii") as lines:
        recording = interpret(lines, folder, Path.cwd(), before)
    _compare(recording, folder)
    return recording


def interpret(lines: Iterable[str], folder: Path, working: Path, before: Tree) -> Recording:
    """Read a trace of a program that was started in the folder `working`. Raises `Unsupported`."""
    reader = _Reader(folder.resolve(), working.resolve(), before)
    events = list(strace.calls(lines))
    reader.learn_births(call for _, call in events)
    for moment, call in events:
        if moment == call.begin:
            reader.entered(call)
        else:
            reader.returned(call)
    reader.operations.sort(key=lambda operation: operation.begin)
    return Recording(before, reader.blank, reader.operations)


def _compare(recording: Recording, folder: Path) -> None:
    model = recording.before.copy()
    model.folders |= {number: {} for number in recording.blank.folders if number not in model.folders}
    model.files |= {number: bytearray() for number in recording.blank.files if number not in model.files}
    for operation in sorted(recording.operations, key=lambda each: each.end):
        model.apply(operation.doing)
    real = read_tree(folder)
    found, meant = dict(real.paths()), dict(model.paths())
    assert found.keys() == meant.keys(), f"the trace does not explain {sorted(found.keys() ^ meant.keys())}"
    for path, number in found.items():
        assert real.files.get(number) == model.files.get(meant[path]), f"the trace does not explain {path}"


@dataclass(slots=True)
class _Description:
    """An open file description, which duplicated descriptors share. `file` is None outside of the folder."""

    path: str
    file: int | None
    append: bool = False
    offset: int = 0


@dataclass(slots=True)
class _Descriptors:
    table: dict[int, _Description] = field(default_factory=dict)
    close_on_exec: set[int] = field(default_factory=set)

    def copy(self) -> "_Descriptors":
        return _Descriptors(dict(self.table), set(self.close_on_exec))


@dataclass(slots=True)
class _Task:
    """What a thread sees: descriptors, which threads share, and its working directory, in a list that is shared too."""

    descriptors: _Descriptors
    working: list[str]


class _Reader:
    """Follows descriptors and names through a trace."""

    def __init__(self, root: Path, working: Path, before: Tree) -> None:
        self.operations: list[Operation] = []
        self._root = str(root)
        self._working = str(working)
        self._live = before.copy()
        self.blank = Tree(modes=self._live.modes)
        self._next = max([*before.files, *before.folders]) + 1
        self._tasks: dict[int, _Task] = {}
        self._births: dict[int, Call] = {}

    def learn_births(self, calls: Iterable[Call]) -> None:
        """Note who made whom: a child may be seen before the call that made it returns."""
        for call in calls:
            if call.name in ("clone", "clone3", "fork", "vfork") and call.result is not None and call.result > 0:
                self._births[call.result] = call

    def entered(self, call: Call) -> None:
        """Take what has its effect at the entry: a closed number may be given out again before `close` returns."""
        task = self._task(call.thread)
        if call.name == "close" and call.arguments:
            task.descriptors.table.pop(strace.number(call.arguments[0]), None)
        elif call.name in _WRITES:
            self._write(call, task)
        elif call.name in ("fsync", "fdatasync"):
            self._sync(call, task)

    def returned(self, call: Call) -> None:
        """Take what has its effect at the return."""
        if call.result is None or call.result < 0:
            return
        task = self._task(call.thread)
        if call.name in _REFUSED:
            raise Unsupported(call.name)
        handler = _HANDLERS.get(call.name)
        if handler is not None:
            handler(self, call, task)

    def _task(self, thread: int) -> _Task:
        if thread not in self._tasks:
            self._tasks[thread] = self._born(self._births.get(thread))
        return self._tasks[thread]

    def _born(self, birth: Call | None) -> _Task:
        if birth is None:
            return _Task(_Descriptors(), [self._working])
        parent = self._task(birth.thread)
        shared = birth.text
        return _Task(
            parent.descriptors if "CLONE_FILES" in shared else parent.descriptors.copy(),
            parent.working if "CLONE_FS" in shared else list(parent.working),
        )

    def _note(self, call: Call, doing: Doing) -> None:
        self._live.apply(doing)
        self.operations.append(Operation(call.begin, call.end, doing))

    # Names

    def _path(self, task: _Task, at: str, path: str) -> str:
        if path.startswith("/proc/self/fd/"):
            return path
        if path.startswith("/"):
            return os.path.normpath(path)
        base = task.working[0] if at == "AT_FDCWD" else task.descriptors.table[strace.number(at)].path
        return os.path.normpath(f"{base}/{path}")

    def _place(self, path: str) -> tuple[int, str] | None:
        """Give folder and name of a path under the root; None for the root itself and what lies elsewhere."""
        if not path.startswith(self._root + "/") or path.endswith(_APART):
            return None
        folder = ROOT
        *above, name = path[len(self._root) + 1 :].split("/")
        for each in above:
            folder = self._live.folders[folder][each]
        return folder, name

    def _find(self, path: str) -> int | None:
        if path == self._root:
            return ROOT
        place = self._place(path)
        return None if place is None else self._live.folders[place[0]].get(place[1])

    def _new(self, mode: int, *, folder: bool = False) -> int:
        number, self._next = self._next, self._next + 1
        for tree in (self._live, self.blank):
            if folder:
                tree.folders[number] = {}
            else:
                tree.files[number] = bytearray()
        self._live.modes[number] = mode & _PRIVATE
        return number

    def _mkdir(self, call: Call, task: _Task) -> None:
        at, path, mode = ["AT_FDCWD", *call.arguments][-3:]
        place = self._place(self._path(task, at, _text(path)))
        if place is not None:
            self._note(call, Made(*place, self._new(int(mode, 8), folder=True)))

    def _unlink(self, call: Call, task: _Task) -> None:
        at, path = call.arguments[:2] if call.name == "unlinkat" else ("AT_FDCWD", call.arguments[0])
        place = self._place(self._path(task, at, _text(path)))
        if place is not None:
            self._note(call, Gone(*place, self._live.folders[place[0]][place[1]]))

    def _rename(self, call: Call, task: _Task) -> None:
        old, new = self._two_paths(call, task)
        if "RENAME_EXCHANGE" in call.text or "RENAME_WHITEOUT" in call.text:
            raise Unsupported(call.name)
        source, target = self._place(old), self._place(new)
        if source is None and target is None:
            return
        if source is None or target is None:
            raise Unsupported(f"a rename across the edge of the folder: {old} -> {new}")
        file = self._live.folders[source[0]][source[1]]
        if self._live.folders[target[0]].get(target[1]) != file:  # two names of one file: rename does nothing
            self._note(call, Moved(*source, *target, file))

    def _link(self, call: Call, task: _Task) -> None:
        if call.name == "linkat" and "AT_EMPTY_PATH" in call.arguments[4] and not _text(call.arguments[1]):
            description = task.descriptors.table.get(strace.number(call.arguments[0]))
            new = self._path(task, call.arguments[2], _text(call.arguments[3]))
        else:
            old, new = self._two_paths(call, task)
            described = old.startswith("/proc/self/fd/")
            description = task.descriptors.table.get(int(old.rpartition("/")[2])) if described else None
            if not described:
                description = _Description(old, self._find(old))
        place = self._place(new)
        if place is None:
            return
        if description is None or description.file is None:
            raise Unsupported(f"a link to something outside of the folder: {new}")
        self._note(call, Made(*place, description.file))

    def _two_paths(self, call: Call, task: _Task) -> tuple[str, str]:
        if call.name in ("rename", "link"):
            old, new = call.arguments
            return self._path(task, "AT_FDCWD", _text(old)), self._path(task, "AT_FDCWD", _text(new))
        at, old, new_at, new = call.arguments[:4]
        return self._path(task, at, _text(old)), self._path(task, new_at, _text(new))

    # Descriptors

    def _open(self, call: Call, task: _Task) -> None:
        at, name, flags, *mode = call.arguments if call.name == "openat" else ["AT_FDCWD", *call.arguments]
        if call.name == "creat":
            flags, mode = "O_WRONLY|O_CREAT|O_TRUNC", [flags]
        path = self._path(task, at, _text(name))
        description = _Description(path, self._opened(call, path, flags, int(mode[0], 8) if mode else 0))
        description.append = "O_APPEND" in flags
        if description.file is not None and ("O_SYNC" in flags or "O_DSYNC" in flags):
            raise Unsupported("O_SYNC")
        self._hold(call, task, description, close_on_exec="O_CLOEXEC" in flags)

    def _opened(self, call: Call, path: str, flags: str, mode: int) -> int | None:
        file = self._find(path)
        if "O_TMPFILE" in flags:
            return None if file is None else self._new(mode)
        if file is None:
            place = self._place(path)
            if place is None:
                return None
            if "O_CREAT" not in flags:
                raise Unsupported(f"the trace does not say how {path} came to be")
            file = self._new(mode)
            self._note(call, Made(*place, file))
        elif "O_TRUNC" in flags and self._live.files[file]:
            self._note(call, Sized(file, 0))
        return file

    def _hold(self, call: Call, task: _Task, description: _Description, *, close_on_exec: bool) -> None:
        assert call.result is not None
        task.descriptors.table[call.result] = description
        task.descriptors.close_on_exec.discard(call.result)
        if close_on_exec:
            task.descriptors.close_on_exec.add(call.result)

    def _duplicate(self, call: Call, task: _Task) -> None:
        if call.name == "fcntl" and not call.arguments[1].startswith("F_DUPFD"):
            return
        if call.arguments[0] == str(call.result):
            return  # dup2 of a number to itself
        description = task.descriptors.table.get(strace.number(call.arguments[0]))
        if description is None:
            assert call.result is not None
            task.descriptors.table.pop(call.result, None)
        else:
            self._hold(call, task, description, close_on_exec="CLOEXEC" in call.text)

    def _close_range(self, call: Call, task: _Task) -> None:
        first, last = strace.number(call.arguments[0]), strace.number(call.arguments[1])
        for each in [each for each in task.descriptors.table if first <= each <= last]:
            if "CLOEXEC" in call.arguments[2]:
                task.descriptors.close_on_exec.add(each)
            else:
                del task.descriptors.table[each]

    def _execute(self, call: Call, task: _Task) -> None:
        kept = task.descriptors.copy()
        for each in kept.close_on_exec:
            kept.table.pop(each, None)
        kept.close_on_exec.clear()
        self._tasks[call.thread] = _Task(kept, task.working)

    def _change_directory(self, call: Call, task: _Task) -> None:
        if call.name == "chdir":
            task.working[0] = self._path(task, "AT_FDCWD", _text(call.arguments[0]))
        else:
            task.working[0] = task.descriptors.table[strace.number(call.arguments[0])].path

    def _begin_task(self, call: Call, task: _Task) -> None:
        assert call.result is not None
        self._task(call.result)

    # Contents

    def _described(self, call: Call, task: _Task) -> _Description | None:
        """Give the description that the first argument names, if it is a file of ours."""
        description = task.descriptors.table.get(strace.number(call.arguments[0]))
        return None if description is None or description.file is None else description

    def _read(self, call: Call, task: _Task) -> None:
        description = self._described(call, task)
        if description is not None:
            assert call.result is not None
            description.offset += call.result

    def _seek(self, call: Call, task: _Task) -> None:
        description = self._described(call, task)
        if description is not None:
            assert call.result is not None
            description.offset = call.result

    def _write(self, call: Call, task: _Task) -> None:
        """Note a write at its entry, where descriptor and offset are sure; the call is filled in when it returns."""
        description = self._described(call, task)
        if description is None:
            octets = strace.octets(call.arguments[1])
            for line in octets.decode(errors="replace").splitlines() if b"ACK " in octets else ():
                if line.startswith("ACK "):
                    # Whoever listens may have it from the entry on.
                    self.operations.append(Operation(call.begin, call.begin, Said(line.removeprefix("ACK "))))
            return
        if call.end == strace.NEVER:
            raise Unsupported("a write that never returned")
        if call.result is None or call.result <= 0:
            return
        file = description.file
        assert file is not None
        octets = strace.octets(call.arguments[1])[: call.result]
        if call.name.startswith("pw"):
            offset = strace.number(call.arguments[3])
        else:
            offset = len(self._live.files[file]) if description.append else description.offset
            description.offset = offset + len(octets)
        self._note(call, Written(file, offset, octets))

    def _resize(self, call: Call, task: _Task) -> None:
        if call.name == "truncate":
            file = self._find(self._path(task, "AT_FDCWD", _text(call.arguments[0])))
        else:
            description = self._described(call, task)
            file = None if description is None else description.file
        if file is None:
            return
        if call.name != "fallocate":
            self._note(call, Sized(file, strace.number(call.arguments[1])))
        elif call.arguments[1] == "0":
            self._note(call, Sized(file, sum(map(strace.number, call.arguments[2:4])), grows=True))
        elif call.arguments[1] != "FALLOC_FL_KEEP_SIZE":
            raise Unsupported(f"fallocate with {call.arguments[1]}")

    def _sync(self, call: Call, task: _Task) -> None:
        """Note a sync; taken at its entry, like a write, since another thread may close the descriptor meanwhile."""
        description = self._described(call, task)
        if description is not None and call.succeeded:
            assert description.file is not None
            self.operations.append(Operation(call.begin, call.end, Synced(description.file)))

    def _map(self, call: Call, task: _Task) -> None:
        if "MAP_SHARED" not in call.arguments[3] or "PROT_WRITE" not in call.arguments[2]:
            return
        description = task.descriptors.table.get(strace.number(call.arguments[4]))
        if description is not None and description.file is not None:
            raise Unsupported(f"a shared writable mapping of {description.path}")

    def _copy(self, call: Call, task: _Task) -> None:
        target = call.arguments[0] if call.name == "sendfile" else call.arguments[2]
        description = task.descriptors.table.get(strace.number(target))
        if description is not None and description.file is not None:
            raise Unsupported(f"{call.name} into {description.path}")

    def _symlink(self, call: Call, task: _Task) -> None:
        _, at, path = call.arguments if call.name == "symlinkat" else ("", "AT_FDCWD", call.arguments[1])
        if self._place(self._path(task, at, _text(path))) is not None:
            raise Unsupported("a symbolic link")


def _text(argument: str) -> str:
    return os.fsdecode(strace.octets(argument))


_WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg"})
_REFUSED = frozenset({"io_uring_setup", "io_submit", "openat2", "sync", "syncfs", "vmsplice"})
_HANDLERS: dict[str, Callable[[_Reader, Call, _Task], None]] = {
    **dict.fromkeys(("open", "openat", "creat"), _Reader._open),
    **dict.fromkeys(("dup", "dup2", "dup3", "fcntl"), _Reader._duplicate),
    **dict.fromkeys(("read", "readv"), _Reader._read),
    **dict.fromkeys(("ftruncate", "truncate", "fallocate"), _Reader._resize),
    **dict.fromkeys(("rename", "renameat", "renameat2"), _Reader._rename),
    **dict.fromkeys(("link", "linkat"), _Reader._link),
    **dict.fromkeys(("unlink", "unlinkat", "rmdir"), _Reader._unlink),
    **dict.fromkeys(("mkdir", "mkdirat"), _Reader._mkdir),
    **dict.fromkeys(("chdir", "fchdir"), _Reader._change_directory),
    **dict.fromkeys(("clone", "clone3", "fork", "vfork"), _Reader._begin_task),
    **dict.fromkeys(("sendfile", "copy_file_range", "splice"), _Reader._copy),
    **dict.fromkeys(("symlink", "symlinkat"), _Reader._symlink),
    "close_range": _Reader._close_range,
    "execve": _Reader._execute,
    "lseek": _Reader._seek,
    "mmap": _Reader._map,
}
