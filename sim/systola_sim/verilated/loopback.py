"""A board without an engine: the ports of ``SimulationTop``, answering each byte by itself.

It checks the harness, the pipe and the pseudo-terminal on their own, with a UART that shares nothing with the
gateware's.
"""

from __future__ import annotations

from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

__all__ = ["BUSY_BYTE", "BUSY_CYCLES", "Loopback", "answer", "loopback_verilog"]

#: A byte is answered with itself exclusive-or this, so that bytes looped back by mistake are told apart.
_CHANGE = 0x5A
#: This byte is answered :data:`BUSY_CYCLES` later; the board is busy meanwhile.
BUSY_BYTE = 0xA5
BUSY_CYCLES = 40_000

_DEPTH = 64
_FRAME_BITS = 10


def answer(data: bytes) -> bytes:
    """What the board answers to ``data``."""
    return bytes(byte ^ _CHANGE for byte in data)


class Loopback(wiring.Component):  # type: ignore[misc]  # Amaranth has no types
    """Answers bytes in order. It takes bytes in at most three of four cycles, so that the harness must wait.

    Members: those of ``SimulationTop``. With ``select_uart`` it uses the pins, otherwise the streams; ``uart_divisor``
    is clock cycles a bit.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "rx_data": In(8),
                "rx_valid": In(1),
                "rx_ready": Out(1),
                "tx_data": Out(8),
                "tx_valid": Out(1),
                "tx_ready": In(1),
                "uart_rx": In(1, init=1),
                "uart_tx": Out(1, init=1),
                "uart_divisor": In(16),
                "select_uart": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8, depth=_DEPTH)
        m.submodules.held = held = SyncFIFOBuffered(width=8, depth=_DEPTH)
        received, received_valid = self._build_receiver(m)
        sent_ready = self._build_transmitter(m, held)

        turn = Signal(2)
        m.d.sync += turn.eq(turn + 1)
        m.d.comb += [
            self.rx_ready.eq(fifo.w_rdy & (turn != 0)),
            fifo.w_data.eq(Mux(self.select_uart, received, self.rx_data)),
            fifo.w_en.eq(Mux(self.select_uart, received_valid, self.rx_valid & self.rx_ready)),
            self.tx_data.eq(held.r_data),
            self.tx_valid.eq(held.r_rdy & ~self.select_uart),
            held.r_en.eq(Mux(self.select_uart, sent_ready, self.tx_ready)),
        ]

        remaining = Signal(range(BUSY_CYCLES + 1))
        worked = Signal()
        m.d.comb += [self.busy.eq(remaining != 0), held.w_data.eq(fifo.r_data ^ _CHANGE)]
        with m.If(remaining != 0):
            m.d.sync += [remaining.eq(remaining - 1), worked.eq(1)]
        with m.Elif(fifo.r_rdy & held.w_rdy):
            with m.If((fifo.r_data == BUSY_BYTE) & ~worked):
                m.d.sync += remaining.eq(BUSY_CYCLES)
            with m.Else():
                m.d.comb += [fifo.r_en.eq(1), held.w_en.eq(1)]
                m.d.sync += worked.eq(0)
        return m

    def _build_receiver(self, m: Module) -> tuple[Any, Any]:
        count, position, shift = Signal(16), Signal(range(_FRAME_BITS + 1)), Signal(_FRAME_BITS)
        valid = Signal()
        m.d.sync += valid.eq(0)
        with m.If(position == 0):
            with m.If(~self.uart_rx):
                m.d.sync += [position.eq(_FRAME_BITS), count.eq(self.uart_divisor >> 1)]
        with m.Elif(count > 1):
            m.d.sync += count.eq(count - 1)
        with m.Else():
            m.d.sync += [count.eq(self.uart_divisor), shift.eq((shift >> 1) | (self.uart_rx << (_FRAME_BITS - 1)))]
            m.d.sync += [position.eq(position - 1), valid.eq((position == 1) & self.uart_rx)]
        return shift[1:9], valid

    def _build_transmitter(self, m: Module, source: SyncFIFOBuffered) -> Any:
        count, shift, left = Signal(16), Signal(_FRAME_BITS, init=(1 << _FRAME_BITS) - 1), Signal(range(_FRAME_BITS + 1))
        ready = Signal()
        # Ready in the last cycle of a stop bit too, so that there is no gap between bytes: otherwise a host at full
        # speed would overrun the board.
        m.d.comb += [self.uart_tx.eq(shift[0]), ready.eq((left == 0) | ((left == 1) & (count <= 1)))]
        with m.If(ready):
            m.d.sync += left.eq(0)
            with m.If(source.r_rdy & self.select_uart):
                m.d.sync += [shift.eq((1 << (_FRAME_BITS - 1)) | (source.r_data << 1)), left.eq(_FRAME_BITS)]
                m.d.sync += count.eq(self.uart_divisor)
        with m.Elif(count > 1):
            m.d.sync += count.eq(count - 1)
        with m.Else():
            m.d.sync += [count.eq(self.uart_divisor), left.eq(left - 1), shift.eq((shift >> 1) | (1 << (_FRAME_BITS - 1)))]
        return ready


def loopback_verilog() -> str:
    """The loopback board as Verilog, its module named as the engine's top."""
    return verilog.convert(Loopback(), name="systola", emit_src=False, strip_internal_attrs=True)  # type: ignore[no-any-return]
