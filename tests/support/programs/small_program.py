"""A program assembled by hand, for tests of the driver that must not depend on the compiler.

Two layers over a vector of eight int8: ``first = x + 1`` and ``second = first + 2``, both saturating. The second keeps
its result elsewhere, so each layer's output can be read.
"""

from __future__ import annotations

import numpy as np

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Opcode, Operation, encode_program
from systola_firmware.spec.program import Binding, LayerRecord, Placement, Program, SoftmaxStep

CHANNELS = 8
INPUT, MIDDLE, OUTPUT = 0, 16, 32


def binding(name: str, address: int) -> Binding:
    """A vector of :data:`CHANNELS` int8 at ``address``, of scale 1/2 and zero point -3."""
    placement = Placement((1, 1, 1, CHANNELS), address, CHANNELS, CHANNELS, CHANNELS, address, CHANNELS)
    return Binding(name, (1, CHANNELS), 0.5, -3, placement)


def add_constant(config: Config, source: int, destination: int, bias: int) -> Operation:
    """VECTOR: ``destination = clamp(source + bias)`` for :data:`CHANNELS` bytes."""
    lanes = config.requantize_lanes
    fields = {
        "source": source,
        "sources": 1,
        "destination": destination,
        "last_lanes": CHANNELS % lanes or lanes,
        "group_count": -(-CHANNELS // lanes),
        "group_step": lanes,
        "minimum": -128,
        "maximum": 127,
        "bias": bias,
        **dict.fromkeys(("t0_count", "t1_count", "x_count", "y_count"), 1),
    }
    return Operation(Opcode.VECTOR, fields, mark=True)


def small_program(config: Config, *, softmax: bool = False, second_source: int = MIDDLE) -> Program:
    """The program for ``config``. ``second_source`` elsewhere makes the second layer read there, e.g. outside the
    memory."""
    operations = [add_constant(config, INPUT, MIDDLE, 1), add_constant(config, second_source, OUTPUT, 2), Operation(Opcode.END, {})]
    words = encode_program(operations)
    length = operations[0].definition.length
    layers = tuple(
        LayerRecord(name, "Lookup", 0, number * length, (number + 1) * length, number, binding(name, address), 100)
        for number, (name, address) in enumerate((("first", MIDDLE), ("second", OUTPUT)))
    )
    step = SoftmaxStep(output=0, beta=1.0, input_scale=0.5, name="probabilities", scale=1 / 256, zero_point=-128)
    return Program(
        model="small",
        preset=config.name,
        configuration=config.program_fields(),
        words=np.array(words, dtype=np.uint32),
        weights=b"\1\2\3",
        inputs=(binding("x", INPUT),),
        outputs=(binding("second", OUTPUT),),
        layers=layers,
        constants=((64, b"\7\7\7\7"),),
        softmax=(step,) if softmax else (),
    )
