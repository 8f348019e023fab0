"""Combinational signals that are computed from bits of themselves.

In hardware and in Amaranth's simulator, ``fields.b.eq(fields.a)`` is a wire from one bit of a structure to another. In
Verilog the structure is one variable, written and read in one ``always @*`` block; Verilator orders such a block as if
the variable were a temporary of its own, and computes from what the variable was before. A simulated board then gives
other answers than the FPGA. A signal of its own for what is read avoids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from amaranth.hdl import Elaboratable, Fragment, Signal
from amaranth.hdl._ast import Assign, Statement, Switch

__all__ = ["self_reads"]


def self_reads(design: Elaboratable) -> list[str]:
    """Every combinational assignment in ``design`` and its submodules to a signal that it reads, on its right side or
    in the conditions around it: the signal's name, and file and line of the assignment."""
    found = set()
    fragments = [Fragment.get(design, None)]
    while fragments:
        fragment = fragments.pop()
        fragments += [subfragment for subfragment, *_ in fragment.subfragments]
        found |= set(_among(fragment.statements.get("comb", ()), ()))
    return sorted(found)


def _among(statements: Iterable[Statement], conditions: Sequence[Signal]) -> Iterator[str]:
    for statement in statements:
        if isinstance(statement, Assign):
            read = [*statement.rhs._rhs_signals(), *conditions]
            for signal in statement.lhs._lhs_signals():
                if any(signal is other for other in read):
                    file, line, *_ = statement.src_loc
                    yield f"{signal.name}, {file}:{line}"
        elif isinstance(statement, Switch):
            inner = [*conditions, *statement.test._rhs_signals()]
            for case in statement.cases:
                yield from _among(case[1], inner)
