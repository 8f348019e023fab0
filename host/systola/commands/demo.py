"""The demonstration behind ``make demo``: a real model on the simulated board, every answer compared with the oracle's.

The oracle is TensorFlow Lite Micro with its reference kernels, from the ``tflite-micro`` package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from systola.commands.reports import BuildProgress, program_report, run_progress
from systola.connect import open_device
from systola.errors import ProgramError
from systola.measure.record import utilization
from systola.session import Session
from systola.tensors import Int8Array

__all__ = ["demonstrate"]

EXAMPLES = Path(__file__).parents[3] / "examples"
MODEL = EXAMPLES / "digits_cnn_int8.tflite"
TEST_IMAGES = EXAMPLES / "digits_test.npz"

#: Images that are shown: the first ones, and the first that the model gets wrong.
_SHOWN, _SHOWN_WRONG = 5, 2

#: What a device is, by the kind that its name has before the colon.
_KINDS = {
    "sim": "simulated by Verilator, clock cycle by clock cycle",
    "golden": "the numpy interpreter, which knows no cycles",
    "serial": "whatever is at that port",
}
_SHADES = " .:-=+*#%@"


def oracle_answers(model: Path, images: Int8Array) -> Int8Array:
    """What TensorFlow Lite Micro answers for each of ``images``. Raises ``ImportError`` without ``tflite-micro``."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model.read_bytes())
    shape = interpreter.get_input_details(0)["shape"]
    answers = []
    for image in images:
        interpreter.set_input(image.reshape(shape), 0)
        interpreter.invoke()
        answers.append(np.array(interpreter.get_output(0), dtype=np.int8))
    return np.stack(answers)


def load_images(session: Session) -> tuple[Int8Array, npt.NDArray[np.int64]]:
    """The test images, int8 ``[N, *input shape]``, and their labels ``[N]``. Raises ``ProgramError`` if they are not
    there."""
    if not TEST_IMAGES.exists():
        raise ProgramError(f"the demonstration runs in a clone of the project: there is no {TEST_IMAGES}")
    with np.load(TEST_IMAGES) as data:
        images, labels = data["images"], data["labels"]
    return images.reshape(len(images), *session.inputs[0].shape), labels.astype(np.int64)


def _run_all(session: Session, images: Int8Array, console: Console) -> Int8Array:
    answers: list[Any] = []
    with run_progress(console) as progress:
        task = progress.add_task("Running the test images", total=len(images))
        for image in images:
            answers.append(session.run(image))
            progress.advance(task)
    return np.stack(answers)


def _picture(image: Int8Array) -> list[str]:
    """The image in characters, a line for two rows of pixels."""
    rows = image.reshape(image.shape[-3], image.shape[-2]).astype(np.int32)[::2]
    low, high = int(rows.min()), int(rows.max())
    levels = (rows - low) * (len(_SHADES) - 1) // max(1, high - low)
    return ["".join(_SHADES[level] * 2 for level in row) for row in levels]


def _best(answers: Int8Array) -> npt.NDArray[np.int64]:
    """The class with the largest score of each answer."""
    return np.asarray(answers.argmax(axis=1), dtype=np.int64)


def _answer_table(images: Int8Array, labels: npt.NDArray[np.int64], answers: Int8Array, expected: Int8Array) -> Table:
    guesses, oracle = _best(answers), _best(expected)
    wrong = np.flatnonzero(guesses != labels)
    shown = sorted({*range(min(_SHOWN, len(images))), *wrong[:_SHOWN_WRONG].tolist()})
    title = f"Some of the {len(images)} test images"
    table = Table("image", "number", "answer", "oracle", "label", title=title, title_justify="left", show_lines=True)
    for index in shown:
        remark = "" if guesses[index] == labels[index] else "  (wrong)"
        answer = f"{guesses[index]} (score {answers[index].max()}){remark}"
        reference = f"{oracle[index]} (score {expected[index].max()})"
        table.add_row("\n".join(_picture(images[index])), str(index), answer, reference, str(labels[index]))
    return table


def demonstrate(device: str, console: Console) -> bool:
    """Run the demonstration. Returns whether every answer equals the oracle's."""

    def tell(what: str, text: str) -> None:
        console.print(f"{what + ':':<11}{text}", highlight=False, soft_wrap=True)

    with BuildProgress(console) as progress:
        opened = open_device(device, progress=progress)
    with opened:
        tell("model", f"{MODEL.name}, compiled here and now")
        kind = _KINDS[str(opened).partition(":")[0]]
        tell("device", f"{opened}, {kind}")
        session = opened.load(MODEL)
        console.print(program_report(session.program, opened.config))
        images, labels = load_images(session)
        answers = _run_all(session, images, console).reshape(len(images), -1)
        expected = oracle_answers(MODEL, images).reshape(len(images), -1)
        console.print(_answer_table(images, labels, answers, expected))
        right = int((_best(answers) == labels).sum())
        same = (answers == expected).all(axis=1)
        tell("accuracy", f"{right}/{len(images)} ({right / len(images):.1%}) of images that the model was not trained on")
        tell("bit-exact", f"{same.sum()}/{len(images)} answers equal TensorFlow Lite Micro's in every element")
        if not same.all():
            tell("DIFFERENT", f"image number {same.argmin()} is the first whose answer is not TensorFlow Lite Micro's")
        if opened.has_cycles:
            _tell_cycles(session, tell)
        tell("next", "`systola run MODEL.tflite --input x.npy --output y.npy`; first `. .venv/bin/activate`")
        return bool(same.all())


def _tell_cycles(session: Session, tell: Callable[[str, str], None]) -> None:
    cycles, config = session.counters["cycles"], session.device.config
    share = utilization(session.program.macs, cycles, config)
    macs = config.rows * config.columns
    tell("cycles", f"{cycles:,} an inference, by the device's own counter")
    tell("array use", f"{share:.1%} of {macs} multiplications a cycle (a small model; `make bench` has larger ones)")
    milliseconds = f"{1e3 * cycles / config.clock_hz:.3f} ms an inference at {config.clock_hz / 1e6:g} MHz"
    tell("time", f"{milliseconds}, worked out from the cycles; nothing was measured on a real board")
