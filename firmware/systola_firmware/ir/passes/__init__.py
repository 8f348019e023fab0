"""Rewrites of the integer graph. Each takes a graph and returns one with the same answers, bit for bit.

:func:`run_passes` applies them in the one order that lets each see what the earlier ones made possible.
"""

from __future__ import annotations

from systola_firmware.ir.graph import Graph
from systola_firmware.ir.passes.fold_constants import fold_constants
from systola_firmware.ir.passes.fuse_activation import fuse_activation
from systola_firmware.ir.passes.fuse_pad import fuse_pad
from systola_firmware.ir.passes.simplify import drop_reshapes, remove_dead_layers

__all__ = ["PASSES", "drop_reshapes", "fold_constants", "fuse_activation", "fuse_pad", "remove_dead_layers", "run_passes"]

#: In order: constants first; then reshapes, which would keep layers from being fused; dead layers last.
PASSES = (fold_constants, drop_reshapes, fuse_pad, fuse_activation, drop_reshapes, remove_dead_layers)


def run_passes(graph: Graph) -> Graph:
    """Apply every pass in order. Inputs and outputs of the graph stay, by name, shape and quantization."""
    for rewrite in PASSES:
        graph = rewrite(graph)
    return graph
