"""What each layer cost, from the trace marks of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from systola.outcome import Mark
from systola_firmware.spec.isa import Opcode
from systola_firmware.spec.memory_map import COUNTERS
from systola_firmware.spec.program import LayerRecord, Program

__all__ = ["LayerProfile", "layer_at", "profile_layers"]


@dataclass(frozen=True)
class LayerProfile:
    """What one layer cost: ``counters`` are the differences between its last trace mark and that of the layer before.

    ``steps`` are the time steps of a recurrent layer, else 0. ``recurrence`` are the counters of the recurrence alone,
    without the product with the inputs; empty for other layers, and where the trace memory has no room for marks inside
    of layers.
    """

    name: str
    operator: str
    macs: int
    predicted_cycles: int
    counters: dict[str, int]
    steps: int = 0
    recurrence: dict[str, int] = field(default_factory=dict)

    @property
    def cycles(self) -> int:
        return self.counters["cycles"]


def layer_at(program: Program, address: int) -> LayerRecord | None:
    """The layer that the instruction at ``address`` (words) belongs to, None for none."""
    return next((record for record in program.layers if record.first <= address < record.end), None)


def profile_layers(program: Program, marks: Sequence[Mark]) -> tuple[LayerProfile, ...]:
    """Every layer that has marks, in program order. A recurrent layer may have several: see :class:`LayerProfile`."""
    before = dict.fromkeys(COUNTERS, 0)
    parts: dict[str, list[tuple[bool, dict[str, int]]]] = {}
    for mark in marks:
        record = layer_at(program, mark.address)
        if record is None:
            continue
        spent = {name: value - before[name] for name, value in mark.counters.items()}
        before = mark.counters
        recurrent = int(program.words[mark.address]) & 0xFF == Opcode.LSTM
        parts.setdefault(record.name, []).append((recurrent, spent))
    return tuple(_profile(record, parts[record.name]) for record in program.layers if record.name in parts)


def _profile(record: LayerRecord, parts: Sequence[tuple[bool, dict[str, int]]]) -> LayerProfile:
    """The cost of a layer. ``parts`` says for each of its marks whether it is at the end of a recurrence, and the
    counters since the mark before."""
    recurrence = [spent for recurrent, spent in parts if recurrent] if len(parts) > 1 else []
    return LayerProfile(
        record.name,
        record.operator,
        record.macs,
        record.predicted_cycles,
        _sum([spent for _, spent in parts]),
        record.steps,
        _sum(recurrence),
    )


def _sum(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: sum(part[name] for part in parts) for name in parts[0]} if parts else {}
