"""A configuration written out in full: as a tree of plain values, or as TOML that reads back to an equal one."""

import json
import re
from collections.abc import Iterator
from typing import cast

from forwarder.config.kinds import Toml
from forwarder.config.schema import Config, Section, kinds, sections

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def as_tree(section: Section) -> dict[str, Toml]:
    """Give every key with the value in effect, as TOML (or JSON) holds it."""
    tree = {field.encode_name: kind.write(getattr(section, field.name)) for field, kind in kinds(type(section))}
    return tree | {name: as_tree(getattr(section, name)) for name, _ in sections(type(section))}


def as_text(config: Config) -> str:
    """Give the configuration as TOML."""
    return tree_text(as_tree(config))


def tree_text(tree: dict[str, Toml]) -> str:
    """Give a tree of plain values as TOML; the keys of a table come before the tables within it."""
    return "\n".join(_table("", tree)) + "\n"


def _table(name: str, table: dict[str, Toml]) -> Iterator[str]:
    if name:
        yield f"\n[{name}]"
    yield from (f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict))
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _table(f"{name}.{_key(key)}" if name else _key(key), value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _value(value: Toml) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _string(value)
    return str(cast("int | bool", value)).lower()


def _string(text: str) -> str:
    # JSON escapes all that TOML wants escaped but DEL (TOML 1.0, "String").
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
