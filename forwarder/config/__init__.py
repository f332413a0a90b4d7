"""The configuration: a TOML file, checked as a whole, as a frozen value (section 6 of the design).

`load(path)` and `parse(text, name)` give a `Config` or raise `ConfigError`, which holds every problem that was found,
each with the key's path, the value and what was expected there. A relative file name is relative to `state_dir`;
`state_dir` and `run_dir` themselves are absolute. `as_text` and `as_tree` write a configuration out in full.

Left out on purpose: whether the files that it names exist and can be read (`forwarder config check` looks), and the
secrets themselves, which are files of their own (`ops.secrets`): a `Config` can be shown to anybody.
"""

from forwarder.config.hosts import Endpoint, Smarthost
from forwarder.config.loading import MAX_SIZE, load, parse, read
from forwarder.config.problems import ConfigError, Problem
from forwarder.config.schema import (
    Config,
    DeliveryMode,
    DmarcMode,
    IpChoice,
    LogFormat,
    LogLevel,
    TlsPolicy,
    Unauthenticated,
)
from forwarder.config.writing import as_text, as_tree, tree_text

__all__ = [
    "MAX_SIZE",
    "Config",
    "ConfigError",
    "DeliveryMode",
    "DmarcMode",
    "Endpoint",
    "IpChoice",
    "LogFormat",
    "LogLevel",
    "Problem",
    "Smarthost",
    "TlsPolicy",
    "Unauthenticated",
    "as_text",
    "as_tree",
    "load",
    "parse",
    "read",
    "tree_text",
]
