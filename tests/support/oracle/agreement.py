"""Device against oracle: every element of every output, and of every tensor on the way, must be equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

import systola
from support.models.inputs import input_sets
from support.oracle.tflm import Oracle
from systola.session import Session

Int8Array = npt.NDArray[np.int8]


def assert_equal(name: str, answer: npt.NDArray[np.generic], expected: npt.NDArray[np.generic]) -> None:
    """Same shape, type and elements; a failure shows where they first differ."""
    assert answer.shape == expected.shape, f"{name}: shape {answer.shape}, the oracle has {expected.shape}"
    assert answer.dtype == expected.dtype, f"{name}: {answer.dtype}, the oracle has {expected.dtype}"
    differing = np.argwhere(answer != expected)
    if differing.size:
        where = tuple(differing[0])
        raise AssertionError(
            f"{name}: {len(differing)} of {answer.size} elements differ, first at {where}: {answer[where]}, not {expected[where]}"
        )


def sets_for(session: Session, count: int, seed: int) -> list[list[Int8Array]]:
    """``count`` sets of inputs for the session's model, corner values first."""
    shapes = [binding.shape for binding in session.inputs]
    return list(input_sets(shapes, [binding.zero_point for binding in session.inputs], count, seed))


def run_sets(session: Session, sets: Sequence[Sequence[Int8Array]]) -> list[list[Int8Array]]:
    """Outputs for each set of inputs; the sets go to the device together, as a batch."""
    stacked = {binding.name: np.stack([item[n] for item in sets]) for n, binding in enumerate(session.inputs)}
    answers = session.run(stacked)
    assert isinstance(answers, dict)  # as the inputs are
    return [[answers[binding.name][n] for binding in session.outputs] for n in range(len(sets))]


def check_outputs(name: str, session: Session, oracle: Oracle, sets: Sequence[Sequence[Int8Array]]) -> int:
    """Compare all outputs over all sets; return the number of elements compared."""
    compared = 0
    for number, (item, answers) in enumerate(zip(sets, run_sets(session, sets), strict=True)):
        expected = oracle.run(*item)
        for binding, answer, tensor in zip(session.outputs, answers, expected, strict=True):
            assert_equal(f"{name}, input set {number}, output {binding.name}", answer, tensor)
            compared += answer.size
    return compared


def check_intermediates(name: str, session: Session, oracle: Oracle, sets: Iterable[Sequence[Int8Array]]) -> int:
    """Compare the output tensor of every layer that the model file knows; return the number of tensors compared."""
    compared = 0
    for number, item in enumerate(sets):
        oracle.run(*item)
        named = {binding.name: values for binding, values in zip(session.inputs, item, strict=True)}
        answers = session.intermediates(named)
        for record in session.program.layers:
            if record.output.index >= 0:
                expected = oracle.tensor(record.output.index)
                assert_equal(f"{name}, input set {number}, layer {record.name}", answers[record.name], expected)
                compared += 1
    return compared


def check_model(name: str, device: systola.Device, model: bytes | Path, *, inputs: int, seed: int) -> int:
    """Load, run and compare ``inputs`` sets of inputs; return the number of elements compared."""
    session = device.load(model)
    return check_outputs(name, session, Oracle(model), sets_for(session, inputs, seed))
