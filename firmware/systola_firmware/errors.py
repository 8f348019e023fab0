"""Why a model cannot be compiled. Every message is one sentence: what is wrong, where, and what to do about it."""

from __future__ import annotations


class CompileError(Exception):
    """Base of everything that the compiler refuses. ``str()`` is one sentence for the user."""


class ModelFileError(CompileError):
    """The file is not a ``.tflite`` model, or it is damaged."""


class UnsupportedModel(CompileError):
    """A sound model that the engine cannot run as it is: floats, dynamic shapes, several subgraphs …"""


class UnsupportedOperator(UnsupportedModel):
    """An operator, or a variant of one, that the compiler does not know.

    Parameters
    ----------
    operator:
        Name in the schema, e.g. ``"TRANSPOSE_CONV"``.
    index:
        Position of the operator in the model.
    tensor:
        Name of the operator's output tensor, for the reader who knows the model by its layers.
    reason:
        What is not supported, as the continuation of a sentence; empty if the operator as such is unknown.
    """

    def __init__(self, operator: str, index: int, tensor: str, reason: str = "") -> None:
        self.operator = operator
        self.index = index
        self.tensor = tensor
        self.reason = reason
        super().__init__(f"operator {operator} (number {index}, output tensor {tensor!r}) {reason or 'is not supported'}")


class DoesNotFit(CompileError):
    """The model needs more of a memory than the configuration has.

    Parameters
    ----------
    what:
        The memory, e.g. ``"activation memory"``.
    needed, available:
        Sizes in ``unit``.
    where:
        What needs it, e.g. a layer; empty for the whole model.
    advice:
        What to do about it, as the continuation of a sentence.
    """

    def __init__(self, what: str, needed: int, available: int, *, where: str = "", advice: str = "", unit: str = "bytes") -> None:
        self.what = what
        self.needed = needed
        self.available = available
        subject = f"{where} needs" if where else "the model needs"
        follow = f": {advice}" if advice else ": choose a larger configuration"
        super().__init__(f"{subject} {needed} {unit} of {what} but there are {available}{follow}")
