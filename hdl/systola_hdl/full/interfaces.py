"""Signatures through which the blocks of the full engine meet. Directions are those of the initiator (the client).

All are in the ``sync`` domain. A transfer of a request happens in a cycle with ``valid & ready``; ``valid`` never waits
for ``ready``. The ports of the memories are in :mod:`systola_hdl.common.memory_ports`.
"""

from __future__ import annotations

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Unit
from systola_hdl.common.layouts import ERROR_CODE, instruction_payload

__all__ = ["AccumulatorDrain", "UnitControl"]


class AccumulatorDrain(Signature):
    """How the post-processor empties the accumulators; initiator is the post-processor.

    While ``full``, the next half to be drained (in the order they were filled) is readable: ``data`` is the int32 of
    every column at ``address``, ``AccumulatorBuffer.read_latency`` cycles after ``address`` is set (every cycle; no
    enable). ``release`` for one cycle frees that half; reads issued before it still return the old data; ``full`` in
    the next cycle is about the following half.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "full": In(1),
                "address": Out(ceil_log2(config.accumulator_depth)),
                "data": In(data.ArrayLayout(32, config.columns)),
                "release": Out(1),
            }
        )


class UnitControl(Signature):
    """Between sequencer (initiator) and an execution unit.

    ``instruction`` is offered once all its tokens are available; the unit takes it when it can start, and the tokens
    with it. ``done`` pulses for one cycle when the oldest taken instruction is complete (see each opcode's words for
    *complete*); a unit may take the next instruction before ``done`` of the last, at most one ahead. ``busy`` is high
    while anything is in progress. ``error`` pulses with ``error_code`` when an instruction breaks a rule; the unit then
    writes nothing more; the sequencer resets all units.
    """

    def __init__(self, unit: Unit) -> None:
        super().__init__(
            {
                "instruction": Out(stream.Signature(instruction_payload(unit))),
                "done": In(1),
                "busy": In(1),
                "error": In(1),
                "error_code": In(ERROR_CODE),
            }
        )
