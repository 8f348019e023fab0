"""The blocks of the full engine, and what every engine has around it."""

from systola_boards.blocks.factory import Factory
from systola_firmware.spec.pcie import window_bits
from systola_hdl.dma.engine import DmaEngine
from systola_hdl.full.control.sequencer import Sequencer
from systola_hdl.full.engine import Engine
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer
from systola_hdl.full.matmul.systolic_array import SystolicArray
from systola_hdl.full.matmul.unit import MatmulUnit
from systola_hdl.full.matmul.weight_loader import WeightLoader
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_hdl.full.post.drain import Drain
from systola_hdl.full.post.lstm.activation import LstmActivation
from systola_hdl.full.post.lstm.cell import LstmCell
from systola_hdl.full.post.lstm.cell_serial import SerialLstmCell
from systola_hdl.full.post.output_stage import OutputStage
from systola_hdl.full.post.parameters import ParameterLoader
from systola_hdl.full.post.requantizer import Requantizer
from systola_hdl.full.post.tables import LookUpTables
from systola_hdl.full.post.unit import PostUnit
from systola_hdl.full.post.vector import Vector
from systola_hdl.host.bus_decoder import BusDecoder
from systola_hdl.host.counters import Counters
from systola_hdl.host.program_store import ProgramStore
from systola_hdl.host.registers import Registers
from systola_hdl.host.trace import Trace
from systola_hdl.link.frames import Link
from systola_hdl.link.uart import UartReceiver, UartTransmitter
from systola_hdl.pcie.endpoint import TlpEndpoint
from systola_hdl.tops.board import Systola

__all__ = ["COMMON", "DMA", "FULL", "LSTM"]

#: Blocks outside the engine, which every board has, with either engine.
COMMON: dict[str, Factory] = {
    "board": Systola,
    "link": lambda _config: Link(),
    "uart_receiver": lambda _config: UartReceiver(),
    "uart_transmitter": lambda _config: UartTransmitter(),
}

FULL: dict[str, Factory] = {
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

DMA: dict[str, Factory] = {"dma_engine": DmaEngine}

LSTM: dict[str, Factory] = {
    "lstm_cell": lambda config: SerialLstmCell() if config.lstm_serial else LstmCell(),
    "lstm_activation": lambda _config: LstmActivation(),
}
