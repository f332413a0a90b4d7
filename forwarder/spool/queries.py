"""What is asked of the tables, as functions on a connection: they run in a group of `database`, on its thread."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from forwarder.model.address import AddressError, parse_domain
from forwarder.model.letter import Change, Part, Query, State, Waiting
from forwarder.ports import Damaged, SpoolError
from forwarder.spool import rows
from forwarder.spool.files import is_id
from forwarder.spool.quarantine import remove_rows


@dataclass(frozen=True, slots=True)
class Record:
    """The rows of one letter."""

    letter: rows.Row
    parts: list[rows.Row]


class Taken(SpoolError):  # noqa: N818 - it says what is the matter
    """The id of a new letter belongs to another."""


def insert(connection: sqlite3.Connection, prepared: tuple[rows.Row, list[rows.Row], list[rows.Row]]) -> None:
    """Add the rows of a letter; raise `SpoolError` if its id is taken."""
    letter, parts, heads = prepared
    try:
        connection.execute(rows.INSERT_LETTER, letter)
    except sqlite3.IntegrityError:
        raise Taken(f"there is a letter {letter[0]} already") from None
    connection.executemany(rows.INSERT_PART, parts)
    connection.executemany(rows.INSERT_HEAD, heads)


def apply(connection: sqlite3.Connection, changes: Sequence[Change]) -> list[str]:
    """Change parts; remove the rows of letters that are done with, and give their ids.

    An unknown part is an error; of a letter that is not there any more it is `Damaged`.
    """
    for change in changes:
        part = change.part
        values = (*rows.progress_row(part, change.progress), part.id, part.number)
        if connection.execute(rows.UPDATE_PROGRESS, values).rowcount != 1:
            raise _unknown(connection, part)
    done = [id for id in dict.fromkeys(change.part.id for change in changes) if _is_done(connection, id)]
    for id in done:
        remove_rows(connection, id)
    return done


def _unknown(connection: sqlite3.Connection, part: Part) -> SpoolError:
    if connection.execute("SELECT 1 FROM letters WHERE id = ?", (part.id,)).fetchone():
        return SpoolError(f"there is no part {part.number} of a letter {part.id}")
    return Damaged(f"the letter {part.id} is not in the spool any more")


def _is_done(connection: sqlite3.Connection, id: str) -> bool:
    """Say whether all parts are final; a letter in which anything is illegible never is."""
    letter = connection.execute("SELECT parts FROM letters WHERE id = ?", (id,)).fetchone()
    parts = connection.execute(rows.SELECT_PROGRESS, (id,)).fetchall()
    if letter != (len(parts),):
        return False
    try:
        return all(rows.read_progress(part).state.final for part in parts)
    except rows.Illegible:
        return False


def record(connection: sqlite3.Connection, id: str) -> Record | None:
    """Give the rows of a letter, None if it has none."""
    letter = connection.execute(rows.SELECT_LETTER, (id,)).fetchone()
    parts = connection.execute(rows.SELECT_PARTS, (id,)).fetchall()
    return Record(letter or (), parts) if letter or parts else None


def records(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Record]:
    """Give the rows of up to TOGETHER letters, by their ids; those that there are not are left out."""
    wanted = (*ids, *(None,) * (rows.TOGETHER - len(ids)))
    found = {row[0]: Record(row, []) for row in connection.execute(rows.SELECT_LETTERS, wanted)}
    for row in connection.execute(rows.SELECT_PARTS_TOGETHER, wanted):
        found.setdefault(row[0], Record((), [])).parts.append(row)
    return found


@dataclass(slots=True)
class Schedule:
    """The QUEUED parts as far as they have been read, and the ids of letters with illegible parts with what is wrong.

    `after` is the part to go on after, None at the beginning; `complete` says that there are no more.
    """

    found: list[Waiting] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    after: tuple[object, ...] | None = None
    complete: bool = False


def read_on(connection: sqlite3.Connection, schedule: Schedule, limit: int) -> None:
    """Read about so many more parts: a slice at a time, so that others need not wait for a whole queue."""
    slice: list[rows.Row] = []
    end = 0
    while not end and not schedule.complete:
        slice = _read_slice(connection, schedule.after, limit)
        schedule.complete = len(slice) < limit
        end = len(slice) if schedule.complete else _last_sound_key(slice)
        limit *= 2
    if end:
        schedule.after = slice[end - 1][:2]
    for row in slice[:end]:
        _note(schedule, row)


def _read_slice(connection: sqlite3.Connection, after: tuple[object, ...] | None, limit: int) -> list[rows.Row]:
    """Read rows as plain text, which takes a third less, and only where damage is in the way as whatever there is."""
    question = (rows.SELECT_WAITING_FIRST, (limit,)) if after is None else (rows.SELECT_WAITING_AFTER, (*after, limit))
    tolerant = connection.text_factory
    connection.text_factory = str
    try:
        return connection.execute(*question).fetchall()
    except sqlite3.OperationalError:  # octets that are no text; what else there is comes again
        connection.text_factory = tolerant
        return connection.execute(*question).fetchall()
    finally:
        connection.text_factory = tolerant


def _last_sound_key(slice: list[rows.Row]) -> int:
    """Give how many rows there are up to the last whose key can be asked for again, which damage may have spoilt."""
    sound = (end for end in range(len(slice), 0, -1) if is_id(rows.text(slice[end - 1][0])))
    return next((end for end in sound if isinstance(slice[end - 1][1], int)), 0)


def _note(schedule: Schedule, row: rows.Row) -> None:
    try:
        one = rows.read_waiting(row)
    except rows.Illegible as error:
        schedule.damaged[rows.text(row[0])] = str(error)
    else:
        if one.progress.state is State.QUEUED:
            schedule.found.append(one)


def queued(connection: sqlite3.Connection, parts: Sequence[Part]) -> list[Part]:
    """Give those parts that are QUEUED."""
    question = "SELECT 1 FROM parts WHERE letter = ? AND number = ? AND state = 'queued'"
    return [part for part in parts if connection.execute(question, (part.id, part.number)).fetchone()]


def ids(connection: sqlite3.Connection) -> set[str]:
    """Give the ids that have a letter's row."""
    return {rows.text(id) for (id,) in connection.execute("SELECT id FROM letters")}


def incomplete(connection: sqlite3.Connection) -> set[str]:
    """Give the ids whose rows do not belong together: a part without its letter, or a letter without its parts."""
    return {
        rows.text(id)
        for (id,) in connection.execute(
            "SELECT letter FROM parts WHERE letter NOT IN (SELECT id FROM letters)"
            " UNION SELECT letter FROM heads WHERE letter NOT IN (SELECT id FROM letters)"
            " UNION SELECT id FROM letters WHERE parts IS NOT (SELECT count(*) FROM parts WHERE letter = id)"
        )
    }


def matching(connection: sqlite3.Connection, query: Query) -> list[str]:
    """Give the ids of the letters that are asked for, oldest first."""
    conditions, values = _letter_conditions(query)
    inner, more = _part_conditions(query)
    if inner and query.ids:  # few letters, whose parts are looked up
        conditions.append(f"EXISTS (SELECT 1 FROM parts p WHERE p.letter = l.id AND {' AND '.join(inner)})")  # noqa: S608
    elif inner:  # one look at all parts, and none at the letters that do not fit
        conditions.append(f"l.id IN (SELECT p.letter FROM parts p WHERE {' AND '.join(inner)})")  # noqa: S608
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    question = f"SELECT l.id FROM letters l {where} ORDER BY l.received, l.id LIMIT ?"  # noqa: S608 - texts of ours
    return [str(id) for (id,) in connection.execute(question, (*values, *more, query.limit or -1))]


def _letter_conditions(query: Query) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if query.ids:
        # A range of the primary key for each: an id begins with what is given and ends before "~".
        conditions.append(
            "l.id IN (SELECT m.id FROM json_each(?) AS j CROSS JOIN letters AS m"
            " ON m.id >= j.value AND m.id <= j.value || '~')"
        )
        values.append(json.dumps([id.upper() for id in query.ids]))
    if query.sender in ("<>",):
        conditions.append("l.original_sender IS NULL")
    elif query.sender:
        conditions.append("casefold(l.original_sender) = ?")
        values.append(rows.raw_address(query.sender))
    return conditions, values


def _part_conditions(query: Query) -> tuple[list[str], list[object]]:
    conditions: list[str] = []
    values: list[object] = []
    if query.states:
        conditions.append(f"p.state IN ({','.join('?' * len(query.states))})")
        values += sorted(state.value for state in query.states)
    if query.to:
        conditions.append("? IN (casefold(p.destination), casefold(p.recipient))")
        values.append(rows.raw_address(query.to))
    if query.domain:
        ending = "@" + _domain(query.domain)
        conditions.append("? IN (substr(p.destination, ?), substr(p.recipient, ?))")
        values += [ending, -len(ending), -len(ending)]
    return conditions, values


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError:
        return text.lower()


def remember(connection: sqlite3.Connection, entries: Mapping[bytes, bytes]) -> None:
    """Keep values under keys; b"" removes."""
    connection.executemany("DELETE FROM memory WHERE key = ?", [(key,) for key, value in entries.items() if not value])
    kept = [(key, value) for key, value in entries.items() if value]
    connection.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?)", kept)


def memories(connection: sqlite3.Connection) -> dict[bytes, bytes]:
    """Give all that is kept under keys."""
    return dict(connection.execute("SELECT key, value FROM memory"))
