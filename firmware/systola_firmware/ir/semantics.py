"""What must be known of a kind of layers beside its arithmetic: its border, its memory, its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from systola_firmware.errors import CompileError
from systola_firmware.ir.tensor import NO_BORDER, Padding, Tensor

#: The border that a layer reads around its first input; the argument is the layer.
BorderRule = Callable[[Any], Padding]


def no_border(_layer: Any) -> Padding:
    """The border rule of layers that read nothing around their inputs."""
    return NO_BORDER


@dataclass(frozen=True)
class OutputMemory:
    """Where the output of a layer may lie. The functions take the layer.

    Parameters
    ----------
    in_place:
        The output may overwrite an operand of the same layout, since each element is written after it has been read for
        the last time.
    view:
        Returns the element of the first input at which the output begins, if the output can be a part of that input's
        memory; None if it cannot. Only tensors without a border are shared in this way.
    lead:
        Returns the number of bytes that the layer needs in front of its output, in the same memory.
    """

    in_place: bool = False
    view: Callable[[Any], int | None] = lambda _layer: None
    lead: Callable[[Any], int] = lambda _layer: 0


#: The output has memory of its own.
OWN = OutputMemory()
#: The output may overwrite an operand.
IN_PLACE = OutputMemory(in_place=True)


@dataclass(frozen=True)
class Batch:
    """``count`` inferences side by side in the inputs of a layer.

    ``inputs`` are the layer's inputs for all inferences, ``first`` is the first of them that is an activation. In each
    of them an inference is ``runs`` runs of consecutive elements: one run, unless there are axes before the batch
    ``axis``.
    """

    count: int
    first: Tensor
    inputs: tuple[Tensor, ...]
    axis: int
    runs: int

    def wider(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """``sizes`` with the size of the batch axis for all inferences."""
        return wider(sizes, self.axis, self.count)

    def refuse(self, reason: str) -> CompileError:
        """The error for inferences that cannot lie side by side; ``reason`` continues "tensor 'x' …"."""
        return refusal(self.first, reason)


#: Takes a layer and its batch; returns the layer for all inferences (its tensors are put in later) and the runs of its
#: output.
BatchRule = Callable[[Any, Batch], tuple[Any, int]]


def wider(sizes: tuple[int, ...], axis: int, count: int) -> tuple[int, ...]:
    """``sizes`` with ``axis`` ``count`` times as long."""
    return (*sizes[:axis], count * sizes[axis], *sizes[axis + 1 :])


def refusal(tensor: Tensor, reason: str) -> CompileError:
    """The error for a tensor along which inferences cannot lie side by side; ``reason`` continues "tensor 'x' …"."""
    return CompileError(f"tensor {tensor.name!r} {reason}: compile the model with a batch of 1")


def any_batch(layer: Any, batch: Batch) -> tuple[Any, int]:
    """The batch rule of layers that do the same with every element, wherever the batch axis is."""
    return layer, batch.runs


def batch_of_images(layer: Any, batch: Batch) -> tuple[Any, int]:
    """The batch rule of layers that work on one image after the other."""
    if batch.axis or len(batch.first.shape) != 4:
        raise batch.refuse(f"of the shape {list(layer.inputs[0].shape)} is no batch of images for {layer.name}")
    return layer, batch.runs


@dataclass(frozen=True)
class Traits:
    """What a class of layers says of itself; see :class:`~systola_firmware.ir.graph.Layer`."""

    border: BorderRule
    memory: OutputMemory
    batch: BatchRule
    on_device: bool
