"""What the lowering of a layer needs: the memory plan, the weight image, the engine's sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from systola_firmware.ir.graph import Layer
from systola_firmware.lowering.fill import border_fills
from systola_firmware.lowering.stage import Stage
from systola_firmware.lowering.weights import WeightImage, table_entries
from systola_firmware.memory.plan import Plan
from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode, Operation
from systola_firmware.spec.program import Placement

__all__ = ["Context"]


@dataclass(frozen=True)
class Context:
    """Where the tensors are, what goes into the weight memory, and for which engine."""

    plan: Plan
    image: WeightImage
    config: Config

    def source(self, layer: Layer, position: int = 0) -> Placement:
        """Where an input is."""
        return self.plan.placements[layer.inputs[position].name]

    def destination(self, layer: Layer) -> Placement:
        """Where the output goes."""
        return self.plan.placements[layer.output.name]

    def is_there_already(self, layer: Layer) -> bool:
        """Whether the output is a view of the first input: nothing is to be done."""
        return self.plan.buffers[layer.inputs[0].name] == self.plan.buffers[layer.output.name]

    def tables(self, *tables: np.ndarray) -> Operation:
        """The TABLE that loads one or two tables of 256 entries, which become part of the weight image."""
        return Operation(Opcode.TABLE, {"source": self.image.add(table_entries(*tables)), "tables": len(tables)})

    def stage(
        self, layer: Layer, body: Sequence[Operation], *, fills: Sequence[Operation] = (), tables: Operation | None = None
    ) -> tuple[Stage, ...]:
        """The stage of a layer: a load of ``tables``, fills of its output's border, then ``fills``, and ``body``."""
        reads = (self.plan.buffers[layer.inputs[0].name],) if body[0].opcode is Opcode.MATMUL else ()
        writes = (self.plan.buffers[layer.output.name],)
        return (Stage(tuple(body), (*self._border(layer), *fills), tables, reads, writes),)

    def _border(self, layer: Layer) -> tuple[Operation, ...]:
        name = layer.output.name
        layout = self.plan.layouts[name]
        for tensor in layer.inputs:
            if self.plan.buffers[tensor.name] == self.plan.buffers[name] and self.plan.layouts[tensor.name] == layout:
                return ()  # works in place: the operand's border is there already, with the same value
        return tuple(border_fills(self.plan.placements[name], layout, self.config))
