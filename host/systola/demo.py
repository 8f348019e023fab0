"""The demonstration behind ``make demo``: a real model on the simulated board, every answer compared with the oracle's.

The oracle is TensorFlow Lite Micro with its reference kernels, from the ``tflite-micro`` package.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from systola.cli import guarded
from systola.connect import DEFAULT_DEVICE, open_device
from systola.errors import ProgramError
from systola.reports import BuildProgress, program_report, run_progress
from systola.session import Session
from systola.tensors import Int8Array

__all__ = ["main"]

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = EXAMPLES / "digits_cnn_int8.tflite"
TEST_IMAGES = EXAMPLES / "digits_test.npz"

#: Answers that are shown one by one.
_SHOWN = 8
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
    """The test images, int8 ``[N, *input shape]``, and their labels ``[N]``. Raises ``ProgramError`` if they are not there."""
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


def _answer_table(images: Int8Array, labels: npt.NDArray[np.int64], answers: Int8Array) -> Table:
    table = Table("image", "answer", "label", title="Some of the answers", title_justify="left", show_lines=True)
    for image, label, answer in list(zip(images, labels, answers, strict=True))[:_SHOWN]:
        guess = int(answer.reshape(-1).argmax())
        table.add_row("\n".join(_picture(image)), str(guess), f"{label}{'' if guess == label else '  (wrong)'}")
    return table


def demonstrate(device: str, console: Console) -> bool:
    """Run the demonstration; whether every answer equals the oracle's."""
    with BuildProgress(console) as progress:
        opened = open_device(device, progress=progress)
    with opened:
        console.print(f"Running [bold]{MODEL.name}[/bold] on [bold]{opened}[/bold].")
        session = opened.load(MODEL)
        console.print(program_report(session.program, opened.config))
        images, labels = load_images(session)
        answers = _run_all(session, images, console)
        console.print(_answer_table(images, labels, answers))
        right = int((answers.reshape(len(images), -1).argmax(axis=1) == labels).sum())
        expected = oracle_answers(MODEL, images)
        equal = int((answers.reshape(len(images), -1) == expected.reshape(len(images), -1)).all(axis=1).sum())
        console.print(f"accuracy:  {right}/{len(images)} ({right / len(images):.1%})", highlight=False)
        console.print(f"bit-exact: {equal}/{len(images)} answers equal TensorFlow Lite Micro's in every element", highlight=False)
        if opened.has_cycles:
            cycles, config = session.counters["cycles"], opened.config
            share = session.program.macs / (cycles * config.rows * config.columns)
            time = f"{1e3 * cycles / config.clock_hz:.3f} ms at the preset's {config.clock_hz / 1e6:g} MHz"
            console.print(f"cycles:    {cycles:,} an inference, by the board's own counter; array use {share:.1%}", highlight=False)
            console.print(f"time:      {time} (simulated; nothing was measured on a real board)", highlight=False, soft_wrap=True)
        return equal == len(images)


def main() -> None:
    """Run the demonstration on the device named by the first argument; exit code 1 if an answer differs."""
    device = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_DEVICE
    guarded(lambda: sys.exit(not demonstrate(device, Console())), debug="--debug" in sys.argv)


if __name__ == "__main__":
    main()
