"""The layers of forwarder/README.md, read off the source: imports go downward only, pure parts stay pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "forwarder"

LEVELS = {
    "model": 0,
    "ports": 0,
    "policy": 1,
    "auth": 1,
    "rules": 1,
    "rewrite": 1,
    "bounce": 1,
    "smtp": 1,
    "session": 2,
    "delivery": 2,
    "listener": 3,
    "net": 3,
    "spool": 3,
    "ops": 3,
    "config": 4,
    "app": 4,
    "cli": 5,
    "__main__": 6,
    "__init__": 0,
}
# Parts of one layer that may know each other (everything else on a layer meets at ports).
SIBLINGS = {("rewrite", "auth"), ("bounce", "smtp"), ("app", "config"), ("ports", "model")}
PURE_MODULES = {f"delivery.{name}" for name in ("route", "classify", "replies", "judge", "memory", "pool", "settings")}
PURE_MODULES |= {f"delivery.{name}" for name in ("intervals", "lanes", "notices", "schedule", "settlement", "underway")}
PURE_MODULES |= {f"delivery.{name}" for name in ("pacing", "pacing_state", "restraints", "pauses", "quota", "window")}
PURE_MODULES |= {f"delivery.{name}" for name in ("congestion", "providers", "waiting")}
WORLD = {
    *("asyncio", "socket", "ssl", "os", "pathlib", "time", "random", "logging", "sqlite3", "subprocess", "threading"),
    *("tempfile", "shutil", "selectors", "aiosmtpd", "aiohttp", "signal", "multiprocessing"),
}
ONLY_IN = {
    "aiosmtpd": {"listener"},
    "dns.resolver": {"net"},
    "dns.asyncresolver": {"net"},
    "dns.asyncquery": {"net"},
    "click": {"cli"},
}


def modules() -> list[str]:
    names = (path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(parts) for parts in names]


def part(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


def imports(module: str) -> Iterator[str]:
    """Every name that a module imports, at load or later, relative ones made absolute."""
    tree = ast.parse((PACKAGE / Path(*module.split(".")).with_suffix(".py")).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inner(module: str) -> set[str]:
    """The parts of forwarder that a module imports, as `part` or `part.module`."""
    known = set(modules()) | {name.rpartition(".")[0] for name in modules()}
    found = set()
    for name in imports(module):
        if name.startswith("forwarder."):
            short = name.removeprefix("forwarder.")
            while short and short not in known:
                short = short.rpartition(".")[0]
            if short:
                found.add(short)
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_go_downward(module: str) -> None:
    mine = part(module)
    for other in inner(module):
        theirs = part(other)
        if theirs == mine or (mine, theirs) in SIBLINGS:
            continue
        assert LEVELS[theirs] < LEVELS[mine], f"{module} imports {other}"


@pytest.mark.parametrize("module", [m for m in modules() if LEVELS[part(m)] <= 1 or m in PURE_MODULES])
def test_pure_parts_touch_nothing_outside(module: str) -> None:
    touched = {name.split(".")[0] for name in imports(module)} & WORLD
    assert not touched, f"{module} imports {touched}"


@pytest.mark.parametrize("module", modules())
def test_libraries_stay_where_they_belong(module: str) -> None:
    for name in imports(module):
        for library, parts in ONLY_IN.items():
            if name == library or name.startswith(library + "."):
                assert part(module) in parts, f"{module} imports {name}"


def test_there_are_no_cycles() -> None:
    graph = {module.removesuffix(".__init__"): inner(module) - {module} for module in modules()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in graph.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", modules())
def test_modules_stay_short(module: str) -> None:
    assert (PACKAGE / Path(*module.split(".")).with_suffix(".py")).read_text().count("\n") <= 500


def test_only_app_and_cli_know_the_configuration() -> None:
    for module in modules():
        if part(module) not in {"app", "cli", "config"}:
            assert not any(part(other) == "config" for other in inner(module)), module


def test_help_loads_no_heavy_library() -> None:
    import subprocess

    code = "import sys; import forwarder.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"asyncio", "aiosmtpd", "cryptography", "dns", "msgspec", "ssl", "re2", "idna", "rich", "aiohttp"}
    assert not heavy & set(loaded)
