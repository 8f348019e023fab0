"""What is registered of an operator family: everything between a model file's operator and its instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from systola_firmware.ir.graph import Layer
from systola_firmware.lowering.context import Context
from systola_firmware.lowering.stage import Stage
from systola_firmware.tflite.operator import OperatorReader

__all__ = ["Family", "Importer", "Operator"]

#: From an operator of a file to layers. Raises ``CompileError`` and its subclasses, or ``QuantizationError``.
Importer = Callable[[OperatorReader], list[Layer]]


@dataclass(frozen=True)
class Operator:
    """One operator of the schema. The texts are the row of ``docs/operators.md``.

    Parameters
    ----------
    name:
        Its name in the schema.
    importer:
        Makes layers from the operator as it is in a file.
    limits:
        What is refused, or required.
    rounding:
        How its results are rounded, and whose kernel does it so.
    """

    name: str
    importer: Importer
    limits: str
    rounding: str


@dataclass(frozen=True)
class Family:
    """A kind of layers, the operators that it comes from, and its instructions.

    The border, memory and batch rule of these layers stand at their class. Their cost is the cost of their instructions
    (:mod:`systola_firmware.lowering.cost`), so no family has a cost model of its own.

    Parameters
    ----------
    layer:
        The class of the layers.
    operators:
        Operators of a model file that become such a layer, each with its importer.
    runs:
        What computes the layers, for ``docs/operators.md``.
    types:
        Types of their activations, weights and biases, for the same page.
    lower:
        Makes stages from a layer and the context; none if nothing is to be done. Raises ``CompileError`` for what the
        instructions cannot describe.
    """

    layer: type[Layer]
    operators: tuple[Operator, ...]
    runs: str
    types: str
    lower: Callable[[Any, Context], tuple[Stage, ...]]
