"""The engine's blocks, and a wrapper that lets any of them be routed alone."""

from collections.abc import Iterator
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Const, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, Flow, In, Out

from systola_boards.blocks.compact import COMPACT
from systola_boards.blocks.factory import Factory
from systola_boards.blocks.full import COMMON, DMA, FULL, LSTM
from systola_boards.catalogue.boards import BOARDS
from systola_boards.catalogue.prepared import PREPARED
from systola_boards.fpga.clocking import ClockGenerator
from systola_boards.fpga.devices import DEVICES, Device
from systola_firmware.spec.config import Config

__all__ = ["Registered", "blocks_of", "device_for", "ports_of"]


def blocks_of(config: Config) -> dict[str, Factory]:
    """What can be synthesised alone of the engine of ``config``, by name; a factory takes the configuration."""
    if config.compact:
        return COMMON | COMPACT
    return COMMON | FULL | (DMA if config.wide_enough_for_dma else {}) | (LSTM if config.lstm else {})


def device_for(preset: str) -> Device:
    """The FPGA of the first board with this preset; that of the ULX3S-85F for a preset that no board has."""
    boards = (*BOARDS.values(), *PREPARED.values())
    return next((board.device for board in boards if board.preset == preset), DEVICES["LFE5U-85F"])


def ports_of(block: Component) -> Iterator[tuple[str, Flow, Value]]:
    """Name, direction and value of each port. A ``ready`` or ``valid`` that is constantly 1 is not a port."""
    for path, member, value in block.signature.flatten(block):
        if not isinstance(value, Const):
            yield "__".join(map(str, path)), member.flow, Value.cast(value)


class Registered(Component):
    """``inner`` with a register on every bit of its ports, so that paths from and to ports count, and with four pins.

    The registers of the inputs are a chain from the pin ``i``, those of the outputs are folded into a chain to the pin
    ``o`` by exclusive or, one register later: any block fits the pins of any package, and synthesis finds nothing of it
    unused. The reset is a register too; on ECP5 there is none, as on the boards (:mod:`systola_boards.fpga.clocking`).

    Members
    -------
    clock, i: In(1)
        Clock; beginning of the chain.
    o: Out(1)
        End of the other chain.
    """

    clock: In(1)
    i: In(1)
    o: Out(1)

    def __init__(self, inner: Component) -> None:
        self.inner = inner
        super().__init__()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains.sync = sync = ClockGenerator.domain(platform)
        has_reset = sync.rst is not None
        m.d.comb += ClockSignal("sync").eq(self.clock)
        m.submodules.inner = self.inner
        inputs: list[Value] = []
        outputs: list[Value] = []
        for _name, flow, value in ports_of(self.inner):
            (inputs if flow == In else outputs).append(value)
        reset = Signal(1 if has_reset else 0)
        i = Cat(*inputs, reset)
        chain = Signal(len(i), reset_less=True)
        m.d.sync += chain.eq(Cat(self.i, chain))
        m.d.comb += i.eq(chain)
        if has_reset:
            m.d.comb += ResetSignal("sync").eq(reset)
        o = Cat(*outputs)
        taken = Signal(len(o), reset_less=True)
        folded = Signal(len(o) + 1, reset_less=True)
        m.d.sync += [taken.eq(o), folded[1:].eq(taken ^ folded[:-1])]
        m.d.comb += self.o.eq(folded[-1])
        return m
