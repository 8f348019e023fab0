"""What lowering makes of a layer: stages of instructions, before order, tokens and marks (which are
``schedule.py``'s)."""

from __future__ import annotations

from dataclasses import dataclass

from systola_firmware.ir.graph import Layer
from systola_firmware.spec.isa import Opcode, Operation


@dataclass(frozen=True)
class Stage:
    """Instructions that follow each other: fills, at most one load of tables, and a *body*: MATMUL and POST (or LSTM)
    alternately, or VECTORs.

    All names are of buffers: ``reads`` are those that the body's MATMULs read, ``writes`` what its POST-unit
    instructions write, ``prepares`` what the fills behind the first MATMUL write for MATMULs of other stages. With
    ``mark`` the stage is worth a trace mark of its own.
    """

    body: tuple[Operation, ...]
    fills: tuple[Operation, ...] = ()
    tables: Operation | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    prepares: tuple[str, ...] = ()
    mark: bool = False

    @property
    def uses_array(self) -> bool:
        """Whether the body is MATMUL/POST pairs."""
        return self.body[0].opcode is Opcode.MATMUL


@dataclass(frozen=True)
class Lowered:
    """The instructions of one layer; no stages if it needs none."""

    layer: Layer
    stages: tuple[Stage, ...] = ()
