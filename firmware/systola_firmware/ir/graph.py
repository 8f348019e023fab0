"""Intermediate representation: a list of layers over int8 tensors, all arithmetic already in integers.

The importer (``systola_firmware.importer``) produces a :class:`Graph`, the passes
(``systola_firmware.ir.passes``) rewrite it, the scheduler (``systola_firmware.lowering.schedule``) turns it into a
program. Layers hold exactly the numbers that the engine uses (multipliers, shifts, tables): nothing after the importer
knows a scale, except to label inputs and outputs.

Every activation tensor is NHWC of rank 4: a tensor of another rank is stored as ``(1, 1, rows, last axis)`` with
``rows`` the product of all axes but the last (a vector is one row). :attr:`Tensor.shape` keeps the model's own shape,
:attr:`Tensor.nhwc` is the stored one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from systola_firmware.ir.semantics import BatchRule, BorderRule, OutputMemory, Traits
from systola_firmware.ir.tensor import Tensor


@dataclass(frozen=True)
class Layer:
    """Base of all layers. ``name`` is for people (operator and number); ``operators`` are the model operator indices it
    covers.

    A class of layers says as keywords, when it is defined, what passes, memory plan and batches must know of it:
    ``border``, what it reads around its first input; ``memory``, where its output may lie; ``batch``, how it works on
    several inferences side by side; ``on_device``, whether the engine computes it or the driver. Without one of them
    Python refuses the class.
    """

    traits: ClassVar[Traits]

    def __init_subclass__(cls, *, border: BorderRule, memory: OutputMemory, batch: BatchRule, on_device: bool) -> None:
        cls.traits = Traits(border, memory, batch, on_device)

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    operators: tuple[int, ...] = ()

    @property
    def operator(self) -> str:
        """Name of the operation in reports."""
        return type(self).__name__

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the model (not of the engine)."""
        return 0


def kinds(base: type[Layer]) -> list[type[Layer]]:
    """All classes of layers below ``base`` that have been defined."""
    return [kind for child in base.__subclasses__() for kind in (child, *kinds(child))]


@dataclass(frozen=True)
class Graph:
    """Layers in execution order. ``inputs`` and ``outputs`` in the model's order.

    ``batch`` inferences of the model run side by side (``systola_firmware.ir.rebatch``); shapes are those of all of
    them together.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    batch: int = 1

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)
