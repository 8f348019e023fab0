"""Signatures through which the blocks of the compact engine meet. Directions are those of the initiator (the client).

All are in the ``sync`` domain. A request is transferred in a cycle with ``valid & ready``; ``valid`` never waits for
``ready``, and what goes with it is stable until then. Reads of the activation and the weight memory use
:class:`~systola_hdl.common.memory_ports.ActivationRead` and :class:`~systola_hdl.common.memory_ports.WeightRead`
unchanged.

============================  ==================================================================================
component                     ports (all flipped here, where the component is the target)
============================  ==================================================================================
``ActivationMemory``   ``read_stream``, ``read_post``: ActivationRead; ``write``: ActivationWrite;
                       ``host``: HostAccess
``WeightMemory``       ``fetch``: ProgramFetch; ``read_post``, ``read_loader``: WeightRead; ``host``: HostAccess
``MatmulUnit``         ``control``: UnitControl; ``drain``: AccumulatorDrain; ``activation``, ``weights``: memories;
                              ``array_busy``, ``wait_weights``, ``wait_activations``, ``wait_post``: events, at most one
                              a cycle
``PostUnit``           ``control``: UnitControl; ``drain``, ``activation_read``, ``activation_write``, ``weights``
============================  ==================================================================================
"""

from __future__ import annotations

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import MAX_PAYLOAD_WORDS, WORD_BITS
from systola_hdl.common.layouts import ERROR_CODE

__all__ = [
    "OPCODE_BITS",
    "PAYLOAD_WORD",
    "AccumulatorDrain",
    "ActivationWrite",
    "HostAccess",
    "ProgramFetch",
    "UnitControl",
    "stored_words",
]

#: A payload word of an instruction, and its number within it: 0 for the word after the header.
PAYLOAD_WORD = data.StructLayout({"word": WORD_BITS, "index": range(max(MAX_PAYLOAD_WORDS.values()))})
#: Width of an opcode.
OPCODE_BITS = 8


def stored_words(config: Config) -> int:
    """Words of 32 bits in the memory of weights and program: the weights from word 0, the program behind them."""
    return config.weight_bytes // 4 + config.program_words


class UnitControl(Signature):
    """Between sequencer (initiator) and an execution unit, which holds one instruction at a time.

    ``words``
        The payload words of the next instruction, in order from index 0, sent only while the unit is not ``busy``; it
        always takes them. Any number of cycles may lie between two words, and between the last word and ``start``.
    ``start``, ``opcode``
        For one cycle, after the last word: execute what was pushed; tokens are taken. ``opcode`` is valid from the
        first word up to and including that cycle, and is always one of the unit's own.
    ``busy``
        From the cycle after ``start`` up to and including the cycle of ``done``; after an ``error``, until reset.
    ``done``
        For one cycle: complete, as ``docs/isa.md`` says for each opcode. A word may follow in the next cycle.
    ``error``, ``error_code``
        ``error`` for one cycle: the instruction broke a rule; ``error_code`` is valid from then until reset. The unit
        writes nothing more and waits for reset (``ResetInserter``). Everything the instruction writes before the point
        of the error has been handed to the memory by then.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "words": Out(stream.Signature(PAYLOAD_WORD, always_ready=True)),
                "start": Out(1),
                "opcode": Out(OPCODE_BITS),
                "busy": In(1),
                "done": In(1),
                "error": In(1),
                "error_code": In(ERROR_CODE),
            }
        )


class ActivationWrite(Signature):
    """Client of the activation memory's write port: an aligned word of 4 bytes, byte ``i`` written if ``mask[i]``.

    ``address`` counts words and lies inside the memory. A read accepted at least ``ActivationMemory.write_latency``
    cycles after the write's ``valid & ready`` sees the new data.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(config.activation_bytes // 4)),
                "data": Out(data.ArrayLayout(8, 4)),
                "mask": Out(4),
            }
        )


class AccumulatorDrain(Signature):
    """How the post-processor empties the accumulators; initiator is the post-processor.

    While ``full``, the next half to be drained (in the order they were filled) is readable: ``position`` is taken when
    ``valid & ready``; ``data``, the int32 of every column there, comes with ``data_valid`` exactly
    ``MatmulUnit.drain_latency`` cycles later, in order, and cannot be refused; it is there for that cycle only.
    ``valid`` only while ``full``.

    ``release`` for one cycle frees that half, after ``data`` of every position wanted has come; ``full`` in the next
    cycle is about the following half.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "full": In(1),
                "valid": Out(1),
                "ready": In(1),
                "position": Out(range(config.accumulator_depth)),
                "data": In(data.ArrayLayout(32, config.columns)),
                "data_valid": In(1),
                "release": Out(1),
            }
        )


class ProgramFetch(Signature):
    """Client of the program's words in the weight memory.

    ``address`` counts words of the program and lies inside it; ``data`` comes with ``data_valid``
    ``WeightMemory.fetch_latency`` cycles after ``valid & ready``, for that cycle only.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(config.program_words)),
                "data": In(WORD_BITS),
                "data_valid": In(1),
            }
        )


class HostAccess(Signature):
    """The host's access to a memory of ``words`` words of 32 bits, one at a time; initiator is the bus decoder.

    ``valid`` stays, with ``address`` (in words, inside the memory), ``write`` and ``data``, up to and including the
    cycle of ``done``; the next access may begin in the cycle after. In that cycle a write has been made or is being
    made (an access after it sees it), and ``read_data`` is the word of a read (anything for a write). The memory serves
    it when nobody else wants its port.
    """

    def __init__(self, words: int) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(ceil_log2(words)),
                "write": Out(1),
                "data": Out(32),
                "done": In(1),
                "read_data": In(32),
            }
        )
