"""Makes the instructions of one layer of the graph, before order, tokens and marks (which are ``schedule``'s).

All layers but an LSTM become one stage at most: fills of the output's border, one load of tables, and a body that
computes.
"""

from __future__ import annotations

from systola_firmware.errors import CompileError
from systola_firmware.ir.graph import Layer
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Lowered
from systola_firmware.operators.registry import family_of
from systola_firmware.spec.isa import IsaError

__all__ = ["lower"]


def lower(layer: Layer, context: Context) -> Lowered:
    """Lower one layer, adding its weights, parameters and tables to the context's image.

    Raises :class:`CompileError` for a layer that the instructions cannot describe.
    """
    stages = family_of(layer).lower(layer, context)
    for operation in (operation for stage in stages for operation in (*stage.fills, *stage.body)):
        try:
            operation.encode()
        except IsaError as error:
            raise CompileError(f"{layer.name} is too large for one instruction ({error})") from error
    return Lowered(layer, stages)
