"""Gateware with a fault planted in it: for tests of the tests."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

__all__ = ["Fault", "with_fault"]


@dataclass(frozen=True)
class Fault:
    """In ``module`` of the package, ``old``, found there once, is replaced by ``new``."""

    module: str
    old: str
    new: str


def with_fault(package: str, module: str, fault: Fault | None) -> ModuleType:
    """A fresh copy of ``module`` of ``package`` whose imports from the package have ``fault``; the real ones stay as
    they are."""
    kept = {name: value for name, value in sys.modules.items() if name == package or name.startswith(f"{package}.")}
    for name in kept:
        del sys.modules[name]
    try:
        importlib.import_module(package)
        if fault is not None:
            name = f"{package}.{fault.module}"
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            source = Path(spec.origin).read_text(encoding="utf-8")
            assert source.count(fault.old) == 1, f"{fault.old!r} occurs {source.count(fault.old)} times in {name}"
            planted = importlib.util.module_from_spec(spec)
            sys.modules[name] = planted
            exec(compile(source.replace(fault.old, fault.new), spec.origin, "exec", dont_inherit=True), planted.__dict__)
        return importlib.import_module(f"{package}.{module}")
    finally:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
        sys.modules |= kept
