"""The compact engine: everything behind the host's bus."""

from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib.wiring import Component, connect, flipped

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import WATCHDOG_CYCLES
from systola_hdl.compact.control.bus_decoder import BusDecoder
from systola_hdl.compact.control.plane import ControlPlane
from systola_hdl.compact.matmul.unit import MatmulUnit
from systola_hdl.compact.memory.activation_memory import ActivationMemory
from systola_hdl.compact.memory.weight_memory import WeightMemory
from systola_hdl.compact.post.unit import PostUnit
from systola_hdl.host.engine_ports import EnginePorts

__all__ = ["Engine"]


class Engine(Component):
    """What :class:`~systola_hdl.full.engine.Engine` is, with the same ports and the same answers; but LSTM is an
    unknown opcode.

    Parameters
    ----------
    config:
        Sizes; ``config.compact`` is set.
    watchdog_cycles:
        Cycles without progress in any unit after which a program is stopped; shorter for tests.

    The ports are :class:`~systola_hdl.host.engine_ports.EnginePorts`.
    """

    def __init__(self, config: Config, *, watchdog_cycles: int = WATCHDOG_CYCLES) -> None:
        if not config.compact:
            raise ValueError(f"configuration {config.name!r} is not of a compact engine")
        self._config = config
        self._watchdog_cycles = watchdog_cycles
        super().__init__(EnginePorts(config))

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        config = self._config
        m.submodules.decoder = decoder = BusDecoder(config)
        m.submodules.control = control = ControlPlane(config, watchdog_cycles=self._watchdog_cycles)
        m.submodules.activation = activation = ActivationMemory(config)
        m.submodules.weight = weight = WeightMemory(config)
        # After an error the units start anew; the memories do not, they only answer what they were asked before.
        matmul, post = MatmulUnit(config), PostUnit(config)
        m.submodules.matmul = ResetInserter(control.unit_reset)(matmul)
        m.submodules.post = ResetInserter(control.unit_reset)(post)
        connect(m, flipped(self.bus), decoder.bus)
        connect(m, decoder.state, control.host)
        connect(m, decoder.activation, activation.host)
        connect(m, decoder.weight, weight.host)
        connect(m, control.fetch, weight.fetch)
        connect(m, control.matmul, matmul.control)
        connect(m, control.post, post.control)
        connect(m, matmul.activation, activation.read_stream)
        connect(m, matmul.weights, weight.read_loader)
        connect(m, post.drain, matmul.drain)
        connect(m, post.activation_read, activation.read_post)
        connect(m, post.activation_write, activation.write)
        connect(m, post.weights, weight.read_post)
        ports = (activation.read_stream, activation.read_post, activation.write, weight.read_loader, weight.read_post)
        m.d.comb += [
            control.array_busy.eq(matmul.array_busy),
            control.wait_weights.eq(matmul.wait_weights),
            control.wait_activations.eq(matmul.wait_activations),
            control.wait_post.eq(matmul.wait_post),
            control.progress.eq(Cat(port.valid & port.ready for port in ports).any() | post.drain.release),
            self.busy.eq(control.busy),
            self.done.eq(control.done),
        ]
        return m
