"""A block between two streams that are always ready, compiled by Verilator: millions of items in seconds."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import numpy.typing as npt
from amaranth.back import verilog
from amaranth.hdl import Elaboratable, Module, Value
from amaranth.lib.wiring import Component, In, Out

from systola_hdl.cells.families import Family, platform_of
from systola_sim.cells import with_cell_models
from systola_sim.verilated.verilator import build_library

__all__ = ["CompiledStream", "FlatStream"]

_HARNESS = Path(__file__).with_name("stream_harness.cpp")
_BYTES = npt.NDArray[np.uint8]
_U8 = np.ctypeslib.ndpointer(np.uint8, flags="C")
_U64 = np.ctypeslib.ndpointer(np.uint64, flags="C")


class FlatStream(Component):
    """A block with the ports ``constants``, ``i`` and ``o``, under names without double underscores, which Verilator
    would encode.

    Attributes
    ----------
    constants, i_valid, i_payload, o_valid, o_payload:
        The block's ports as plain bits; ``ready`` is left out, for it is always high.
    """

    def __init__(self, block: Component) -> None:
        self._block = block
        super().__init__(
            {
                "constants": In(len(Value.cast(block.constants))),
                "i_valid": In(1),
                "i_payload": In(len(Value.cast(block.i.payload))),
                "o_valid": Out(1),
                "o_payload": Out(len(Value.cast(block.o.payload))),
            }
        )

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.block = block = self._block
        m.d.comb += [
            Value.cast(block.constants).eq(self.constants),
            block.i.valid.eq(self.i_valid),
            Value.cast(block.i.payload).eq(self.i_payload),
            self.o_valid.eq(block.o.valid),
            self.o_payload.eq(block.o.payload),
        ]
        return m


class CompiledStream:
    """A component with the ports ``constants``, ``i`` and ``o``. Its library is built once and kept in the cache of the
    boards.

    ``family`` chooses the component's bodies, and the simulation models of that family's cells come with them.

    Raises as :func:`systola_sim.verilated.verilator.build_library` and :func:`systola_sim.cells.with_cell_models` do.
    """

    def __init__(self, block: Component, family: Family = Family.PORTABLE) -> None:
        flat = FlatStream(block)
        text = verilog.convert(flat, name="systola", emit_src=False, strip_internal_attrs=True, platform=platform_of(family))
        if family is not Family.PORTABLE:
            text = with_cell_models(text, family)
        self._library = ctypes.CDLL(str(build_library(text, lambda: text, harness=_HARNESS)))
        for name in ("item", "result", "constants"):
            getattr(self._library, f"stream_{name}_bytes").restype = ctypes.c_size_t
        self._library.stream_run.restype = ctypes.c_size_t
        self._library.stream_run.argtypes = [_U8, _U8, _U64, ctypes.c_size_t, ctypes.c_uint64, _U8, _U64, ctypes.c_size_t]

    def run(
        self, constants: int, items: _BYTES, starts: npt.NDArray[np.uint64], *, drain: int
    ) -> tuple[_BYTES, npt.NDArray[np.uint64]]:
        """Reset the block and run it.

        Parameters
        ----------
        constants:
            Bits of the port.
        items:
            Little-endian bytes ``(n, bytes of an item)``.
        starts:
            Cycle of each item, rising, counted from the end of reset.
        drain:
            Cycles to run after the last item.

        Returns
        -------
        Bytes of every result and the cycle of each, for however many there were, up to one more than items.
        """
        size = self._library.stream_item_bytes()
        packed = np.zeros((len(items), size), np.uint8)
        packed[:, : items.shape[1]] = items
        constants_bytes = constants.to_bytes(self._library.stream_constants_bytes(), "little")
        limit = len(items) + 1
        results = np.zeros((limit, self._library.stream_result_bytes()), np.uint8)
        ends = np.zeros(limit, np.uint64)
        found = self._library.stream_run(
            np.frombuffer(constants_bytes, np.uint8),
            packed,
            np.ascontiguousarray(starts, np.uint64),
            len(items),
            int(starts[-1]) + 1 + drain,
            results,
            ends,
            limit,
        )
        return results[: min(found, limit)], ends[: min(found, limit)]
