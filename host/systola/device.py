"""A device: an engine that models can be loaded on."""

from __future__ import annotations

from pathlib import Path

from systola.engine import Engine
from systola.session import Session
from systola_firmware.spec.program import Program

__all__ = ["Device"]


class Device(Engine):
    """One engine behind ``transport``; see :class:`~systola.engine.Engine` for its members and errors."""

    def load(self, model: str | Path | bytes | Program, *, stateful: bool = False, batch: int = 1, verify: bool = False) -> Session:
        """Compile ``model`` for this device if need be, write it to the device, and return the session that runs it.

        ``model`` is a ``.tflite`` or ``.systola`` file, the bytes of one, or a program. With ``stateful`` recurrent
        layers go on in each run where the run before left them, until ``Session.reset()``. With ``batch``, that many of
        the inputs given to ``Session.run`` go through the device at once. All of them together are then quicker if
        loading weights is what takes the time; they need that many times the activation memory. ``verify`` reads
        everything back. Raises :class:`~systola.errors.ProgramError` for a model that cannot run here, naming the
        reason.
        """
        from systola.models import load_program  # late, as this imports the compiler, which is not needed to read registers

        program = load_program(model, self.config, stateful=stateful, batch=batch)
        self.check(program)
        return Session(self, program, verify=verify)
