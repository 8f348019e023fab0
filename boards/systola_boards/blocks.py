"""The engine's blocks, and a wrapper that lets any of them be routed alone."""

from collections.abc import Callable, Iterator
from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Module, ResetSignal, Signal, Value
from amaranth.lib.wiring import Component, Flow, In, Out

from systola_boards.catalogue import BOARDS
from systola_boards.devices import DEVICES, Device
from systola_boards.prepared import PREPARED
from systola_firmware.config import Config
from systola_firmware.pcie import window_bits
from systola_hdl.accumulators import AccumulatorBuffer
from systola_hdl.activation_memory import ActivationMemory
from systola_hdl.board_top import Systola
from systola_hdl.bus_decoder import BusDecoder
from systola_hdl.compact.accumulators import CompactAccumulators
from systola_hdl.compact.activation_memory import CompactActivationMemory
from systola_hdl.compact.control_plane import ControlPlane
from systola_hdl.compact.dot_array import DotArray
from systola_hdl.compact.engine import CompactEngine
from systola_hdl.compact.matmul_unit import CompactMatmulUnit
from systola_hdl.compact.post_unit import CompactPostUnit
from systola_hdl.compact.requantizer import CompactRequantizer
from systola_hdl.compact.streamer import CompactStreamer
from systola_hdl.compact.weight_loader import CompactWeightLoader
from systola_hdl.compact.weight_memory import CompactWeightMemory
from systola_hdl.counters import Counters
from systola_hdl.dma.engine import DmaEngine
from systola_hdl.drain import Drain
from systola_hdl.engine import Engine
from systola_hdl.families import Family, family_of
from systola_hdl.link import Link
from systola_hdl.lstm_activation import LstmActivation
from systola_hdl.lstm_cell import LstmCell
from systola_hdl.lstm_cell_serial import SerialLstmCell
from systola_hdl.matmul_unit import MatmulUnit
from systola_hdl.output_stage import OutputStage
from systola_hdl.parameters import ParameterLoader
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.post_unit import PostUnit
from systola_hdl.program_store import ProgramStore
from systola_hdl.registers import Registers
from systola_hdl.requantizer import Requantizer
from systola_hdl.sequencer import Sequencer
from systola_hdl.streamer import Streamer
from systola_hdl.systolic_array import SystolicArray
from systola_hdl.tables import LookUpTables
from systola_hdl.trace import Trace
from systola_hdl.uart import UartReceiver, UartTransmitter
from systola_hdl.vector import Vector
from systola_hdl.weight_loader import WeightLoader
from systola_hdl.weight_memory import WeightMemory

__all__ = ["Registered", "blocks_of", "device_for", "ports_of"]

Factory = Callable[[Config], Component]

#: What every engine has.
_COMMON: dict[str, Factory] = {
    "board": Systola,
    "link": lambda _config: Link(),
    "uart_receiver": lambda _config: UartReceiver(),
    "uart_transmitter": lambda _config: UartTransmitter(),
}

_LARGE: dict[str, Factory] = {
    "engine": Engine,
    "sequencer": Sequencer,
    "registers": Registers,
    "bus_decoder": BusDecoder,
    "program_store": ProgramStore,
    "counters": lambda _config: Counters(),
    "trace": Trace,
    "activation_memory": ActivationMemory,
    "weight_memory": WeightMemory,
    "matmul_unit": MatmulUnit,
    "streamer": Streamer,
    "weight_loader": WeightLoader,
    "systolic_array": SystolicArray,
    "accumulators": AccumulatorBuffer,
    "post_unit": PostUnit,
    "drain": Drain,
    "parameters": ParameterLoader,
    "requantizer": lambda _config: Requantizer(),
    "vector": Vector,
    "tables": lambda config: LookUpTables(config.requantize_lanes),
    "output_stage": OutputStage,
    "pcie_endpoint": lambda config: TlpEndpoint(window_bits(config)),
}

_DMA: dict[str, Factory] = {"dma_engine": DmaEngine}

_LSTM: dict[str, Factory] = {
    "lstm_cell": lambda config: SerialLstmCell() if config.lstm_serial else LstmCell(),
    "lstm_activation": lambda _config: LstmActivation(),
}

_COMPACT: dict[str, Factory] = {
    "engine": CompactEngine,
    "control_plane": ControlPlane,
    "activation_memory": CompactActivationMemory,
    "weight_memory": CompactWeightMemory,
    "matmul_unit": CompactMatmulUnit,
    "streamer": CompactStreamer,
    "weight_loader": CompactWeightLoader,
    "dot_array": DotArray,
    "accumulators": CompactAccumulators,
    "post_unit": CompactPostUnit,
    "requantizer": lambda _config: CompactRequantizer(),
}


def blocks_of(config: Config) -> dict[str, Factory]:
    """What can be synthesised alone of the engine of ``config``, by name; a factory takes the configuration."""
    if config.compact:
        return _COMMON | _COMPACT
    return _COMMON | _LARGE | (_DMA if config.wide_enough_for_dma else {}) | (_LSTM if config.lstm else {})


def device_for(preset: str) -> Device:
    """The FPGA of the first board with this preset; that of the ULX3S-85F for a preset that no board has."""
    boards = (*BOARDS.values(), *PREPARED.values())
    return next((board.device for board in boards if board.preset == preset), DEVICES["LFE5U-85F"])


def ports_of(block: Component) -> Iterator[tuple[str, Flow, Value]]:
    """Name, direction and value of each port; a ready or valid that is always one is none."""
    for path, member, value in block.signature.flatten(block):
        if not isinstance(value, Const):
            yield "__".join(map(str, path)), member.flow, Value.cast(value)


class Registered(Component):
    """``inner`` with a register on every bit of its ports, so that paths from and to ports count, and with four pins.

    The registers of the inputs are a chain from the pin ``i``, those of the outputs are folded into a chain to the pin ``o`` by
    exclusive or, one register later: any block fits the pins of any package, and nothing of it is found to be unused. On iCE40 and
    Gowin, the reset is a register too; on ECP5 there is none, as on the boards (:mod:`systola_boards.clocking`).

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
        has_reset = family_of(platform) is not Family.ECP5
        m.domains.sync = ClockDomain("sync", reset_less=not has_reset)
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
