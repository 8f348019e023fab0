"""Which test covers a module: the one of its name in the mirrored folder, else the one that ``modules.toml`` names.

``python tests/test_modules.py`` lists what is missing, with the tests that import the module.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "modules.toml"
#: Folders in which modules are looked for, and where their packages begin.
_SOURCES = {"hdl": "hdl", "firmware": "firmware", "host": "host", "sim": "sim", "boards": "boards", "support": "tests"}
#: Packages of which every module has a test.
_COVERED = {"hdl": "systola_hdl", "firmware": "systola_firmware"}


def modules() -> dict[str, Path]:
    """Every module that must be covered, by its dotted name."""
    found = {}
    for folder, package in _COVERED.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            if path.name != "__init__.py":
                found[".".join(path.relative_to(ROOT / folder).with_suffix("").parts)] = path
    return found


def own_test(module: str) -> Path:
    """Where the test of a module is, if it has one of its own."""
    package, *rooms, name = module.split(".")
    return ROOT.joinpath("tests", package.removeprefix("systola_"), *rooms, f"test_{name}.py")


def _path_of(dotted: str) -> Path | None:
    for folder in _SOURCES.values():
        path = ROOT.joinpath(folder, *dotted.split("."))
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def imported(path: Path) -> frozenset[str]:
    """Names of what a file imports, those of functions and of packages' members too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


@functools.cache
def reached(path: Path) -> frozenset[str]:
    """All modules that a test file comes to by imports: a block's bench comes to its parts by the block itself."""
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        for name in imported(waiting.pop()):
            target = _path_of(name)
            if name not in seen and target is not None:
                seen.add(name)
                waiting.append(target)
    return frozenset(seen)


def table() -> dict[str, str]:
    """From ``modules.toml``: the test that covers a module which has none of its own."""
    content: dict[str, str] = tomllib.loads(TABLE.read_text(encoding="utf-8"))["covered_by"]
    return content


def test_every_module_has_a_test_or_says_which_covers_it() -> None:
    assert [module for module in modules() if not own_test(module).is_file() and module not in table()] == []


def test_the_table_names_modules_that_need_it() -> None:
    assert [module for module in table() if module not in modules()] == []
    assert [module for module in table() if own_test(module).is_file()] == []


def test_the_tests_in_the_table_come_to_their_modules() -> None:
    assert [name for name in table().values() if not (ROOT / "tests" / name).is_file()] == []
    assert [module for module, name in table().items() if module not in reached(ROOT / "tests" / name)] == []


if __name__ == "__main__":
    for missing in [module for module in modules() if not own_test(module).is_file() and module not in table()]:
        tests = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if missing in imported(path)]
        print(missing, *(str(path.relative_to(ROOT / "tests")) for path in tests))
