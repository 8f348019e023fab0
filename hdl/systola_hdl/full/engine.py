"""The engine: everything behind the host's bus."""

from amaranth.hdl import Cat, Const, Module, Mux, ResetInserter, Signal
from amaranth.lib.wiring import Component, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WATCHDOG_CYCLES
from systola_firmware.spec.memory_map import STATUS_ERROR_SHIFT
from systola_hdl.dma.engine import DmaEngine
from systola_hdl.full.control.sequencer import Sequencer
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.unit import MatmulUnit
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_hdl.full.post.unit import PostUnit
from systola_hdl.host.bus_decoder import BusDecoder
from systola_hdl.host.counters import Counters
from systola_hdl.host.engine_ports import EnginePorts
from systola_hdl.host.program_store import ProgramStore
from systola_hdl.host.registers import Registers
from systola_hdl.host.trace import Trace

__all__ = ["Engine"]


class Engine(Component):
    """Registers, memories, sequencer and execution units.

    Parameters
    ----------
    config:
        Sizes of the engine.
    watchdog_cycles:
        Cycles without progress in any unit after which a program is stopped; shorter for tests. What counts is a
        fetched word, an instruction started or completed, a transfer between a unit and a memory, a half of the
        accumulators freed.

    The ports are :class:`~systola_hdl.host.engine_ports.EnginePorts`.
    """

    def __init__(self, config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> None:
        self._config = config
        self._watchdog_cycles = watchdog_cycles
        super().__init__(EnginePorts(config))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.decoder = decoder = BusDecoder(config)
        m.submodules.registers = registers = Registers(config)
        m.submodules.program = program = ProgramStore(config)
        m.submodules.activation = activation = ActivationMemory(config)
        m.submodules.weight = weight = WeightMemory(config)
        m.submodules.trace = trace = Trace(config)
        m.submodules.counters = counters = Counters()
        connect(m, flipped(self.bus), decoder.bus)
        connect(m, decoder.registers, registers.host)
        connect(m, decoder.program, program.host)
        connect(m, decoder.activation, activation.host)
        connect(m, decoder.weight, weight.host)
        connect(m, decoder.trace, trace.host)
        m.submodules.sequencer = sequencer = Sequencer(config, watchdog_cycles=self._watchdog_cycles)
        matmul = MatmulUnit(config)
        post = PostUnit(
            config,
            accumulator_read_latency=AccumulatorBuffer.read_latency,
            activation_write_latency=ActivationMemory.write_latency,
        )
        # After an error the units are reset. The memories are not: they still answer the reads that were requested
        # before. Each unit has a reset register of its own, which synthesis must not merge: the units are large and lie
        # apart.
        matmul_reset, post_reset = Signal(attrs={"keep": 1}), Signal(attrs={"keep": 1})
        m.d.sync += [matmul_reset.eq(sequencer.unit_reset), post_reset.eq(sequencer.unit_reset)]
        m.submodules.matmul = ResetInserter(matmul_reset)(matmul)
        m.submodules.post = ResetInserter(post_reset)(post)
        connect(m, sequencer.matmul, matmul.control)
        connect(m, sequencer.post, post.control)
        connect(m, matmul.activation, activation.read_stream)
        connect(m, matmul.weights, weight.read_loader)
        connect(m, post.drain, matmul.drain)
        connect(m, post.activation_read, activation.read_post)
        connect(m, post.activation_write, activation.write)
        connect(m, post.weights, weight.read_post)
        m.d.comb += matmul.step_done.eq(post.step_done)
        self._connect_host(m, registers, program, sequencer)
        self._connect_observation(m, registers, sequencer, counters, trace)
        if config.dma:
            self._build_dma(m)

        m.d.comb += [
            counters.events.array_busy.eq(matmul.array_busy),
            counters.events.wait_token.eq(sequencer.wait_token),
            counters.events.wait_weights.eq(matmul.wait_weights),
            counters.events.wait_activations.eq(matmul.wait_activations),
            counters.events.wait_post.eq(matmul.wait_post),
            counters.events.wait_step.eq(matmul.wait_step),
            counters.events.post_busy.eq(post.busy),
            counters.events.cell_busy.eq(post.cell_busy),
        ]
        ports = (activation.read_stream, activation.read_post, activation.write, weight.read_loader, weight.read_post)
        transfers = Cat(*(port.valid & port.ready for port in ports))
        m.d.sync += sequencer.progress.eq(transfers.any() | matmul.array_busy | post.drain.release)
        return m

    def _connect_host(self, m: Module, registers: Registers, program: ProgramStore, sequencer: Sequencer) -> None:
        m.d.comb += [
            sequencer.start.eq(registers.start),
            sequencer.start_address.eq(registers.start_address),
            sequencer.abort.eq(registers.abort),
            program.fetch_enable.eq(sequencer.fetch_enable),
            program.fetch_address.eq(sequencer.fetch_address),
            sequencer.fetch_data.eq(program.fetch_data),
            registers.busy.eq(sequencer.busy),
            registers.done.eq(sequencer.done),
            registers.error.eq(sequencer.error),
            registers.error_code.eq(sequencer.error_code),
            # While a program runs, the sequencer keeps the address of the instruction being fetched in this register.
            registers.error_address.eq(Mux(sequencer.error, sequencer.error_address, 0)),
            self.busy.eq(sequencer.busy),
            self.done.eq(sequencer.done),
        ]

    def _build_dma(self, m: Module) -> None:
        """The DMA engine beside the host's bus, with a port of its own at each memory."""
        m.submodules.dma = dma = DmaEngine(self._config)
        registers, sequencer, counters = m.submodules.registers, m.submodules.sequencer, m.submodules.counters
        flags = Cat(registers.busy, registers.done, registers.error)
        connect(m, m.submodules.decoder.dma, dma.registers)
        connect(m, flipped(self.host), dma.host)
        for name in ("program", "activation", "weight"):
            memory = m.submodules[name]
            connect(m, getattr(dma, f"read_{name}"), memory.dma_read)
            connect(m, getattr(dma, f"write_{name}"), memory.dma_write)
        m.d.comb += [
            sequencer.start.eq(registers.start | dma.start),
            sequencer.start_address.eq(Mux(dma.start, dma.start_address, registers.start_address)),
            dma.busy.eq(sequencer.busy),
            dma.error.eq(sequencer.error),
            dma.state.status.eq(Cat(flags, Const(0, STATUS_ERROR_SHIFT - len(flags)), registers.error_code)),
            dma.state.error_address.eq(registers.error_address),
            dma.state.marks.eq(registers.marks),
            dma.state.counters.eq(counters.values),
        ]

    def _connect_observation(self, m: Module, registers: Registers, sequencer: Sequencer, counters: Counters, trace: Trace) -> None:
        m.d.comb += [
            counters.clear.eq(sequencer.clear),
            counters.run.eq(sequencer.counting),
            registers.counters.eq(counters.values),
            trace.clear.eq(sequencer.clear),
            trace.counters.eq(counters.values),
            trace.marks.eq(sequencer.marks),
            sequencer.mark_level.eq(trace.level),
            sequencer.trace_idle.eq(trace.idle),
            registers.marks.eq(trace.count),
        ]
