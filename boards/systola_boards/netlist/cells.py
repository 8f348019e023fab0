"""Changes of one cell in a netlist, to see that the netlist check notices them."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from systola_hdl.cells.families import Family

__all__ = ["Fault", "faulty"]


class Fault(enum.StrEnum):
    """Which cell is changed, and what of it."""

    LUT = "lut"  #: the lowest bit of a look-up table of the link's checksum: what it gives where all its inputs are 0
    MULTIPLIER = "multiplier"  #: the highest bit of the moving operand of one of the array's multipliers: it is always 0


@dataclass(frozen=True)
class _Target:
    """The first cell of type ``kind`` whose name contains ``name``.

    ``port`` is what is changed: ``changed`` is an expression of its connection ``x`` and the switch ``s``. For an
    output, which a look-up table's is, ``x`` is what the cell drives; ``inputs`` are the others.
    """

    kind: str
    name: str
    port: str
    changed: str
    inputs: tuple[str, ...] = ()


_TARGETS = {
    (Family.ECP5, Fault.LUT): _Target("LUT4", "crc", "Z", "x ^ (s & ~(A | B | C | D))", ("A", "B", "C", "D")),
    (Family.ICE40, Fault.LUT): _Target("SB_LUT4", "crc", "O", "x ^ (s & ~(I0 | I1 | I2 | I3))", ("I0", "I1", "I2", "I3")),
    (Family.ECP5, Fault.MULTIPLIER): _Target("MULT18X18D", "", "A17", "x & ~s"),
    (Family.ICE40, Fault.MULTIPLIER): _Target("SB_MAC16", "", "A", "x & {~s, 15'h7fff}"),
}


def _instance(text: str, target: _Target) -> re.Match[str]:
    name = rf"\\?\S*{re.escape(target.name)}\S*"
    match = re.search(rf"^  {target.kind} (?:#\(\n(?:    .*\n)*?  \) )?{name} +\(\n(?:    .*\n)*?  \);\n", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"the netlist has no {target.kind} in whose name is {target.name!r}")
    return match


def _connection(instance: str, port: str) -> str:
    match = re.search(rf"^    \.{port}\((.*)\),?$", instance, re.MULTILINE)
    if match is None:
        raise ValueError(f"nothing is connected to {port}")
    return match[1].strip()


def faulty(text: str, family: Family, fault: Fault, switch: str) -> str:
    """The netlist ``text`` with one cell changed while the Verilog expression ``switch`` is 1.

    A look-up table keeps its ``INIT``, and the bit that is changed is exclusive-ored to its output: that is the same
    function. Raises ``ValueError`` if there is no such cell.
    """
    target = _TARGETS[family, fault]
    match = _instance(text, target)
    instance = match[0]
    connection = _connection(instance, target.port)
    names = {name: f"({_connection(instance, name)} )" for name in target.inputs} | {"s": switch}
    wire = f"changed_{fault}"
    if not target.inputs:
        names["x"] = connection + " "
        expression = re.sub(r"\b[A-Za-z]\w*\b", lambda word: names.get(word[0], word[0]), target.changed)
        changed = instance.replace(f".{target.port}({connection}", f".{target.port}({expression}")
    else:
        names["x"] = wire
        expression = re.sub(r"\b[A-Za-z]\w*\b", lambda word: names.get(word[0], word[0]), target.changed)
        changed = f"  wire {wire};\n{instance}  assign {connection} = {expression};\n"
        changed = changed.replace(f".{target.port}({connection}", f".{target.port}({wire}")
    return text[: match.start()] + changed + text[match.end() :]
