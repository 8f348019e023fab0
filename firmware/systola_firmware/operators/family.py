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
        The schema's.
    importer:
        Makes layers of it.
    limits:
        What is refused.
    rounding:
        How its integers come about, and by whose kernel.
    """

    name: str
    importer: Importer
    limits: str
    rounding: str


@dataclass(frozen=True)
class Family:
    """A kind of layers, the operators that it comes from, and its instructions.

    Its border, memory and batch rule stand at the layer's class. Its cost is that of its instructions
    (:mod:`systola_firmware.lowering.cost`), so no family has a model of its own.

    Parameters
    ----------
    layer:
        Its class.
    operators:
        Operators of a model file that become such a layer; each imports itself.
    runs:
        What computes it, for ``docs/operators.md``.
    types:
        Types of its activations, weights and biases, for the same.
    lower:
        From the layer and the context to its stages, none if nothing is to be done. Raises ``CompileError`` for what
        the instructions cannot describe.
    """

    layer: type[Layer]
    operators: tuple[Operator, ...]
    runs: str
    types: str
    lower: Callable[[Any, Context], tuple[Stage, ...]]
