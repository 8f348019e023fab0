"""The DMA engine between a simulated link and the real memories, with an engine that only pretends to run programs."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import connect

from support.benches.bus_driver import BusDriver
from support.benches.simulate import simulator_of
from support.pcie.host_memory import BASE, HostLink, PlainHost
from systola_firmware.spec.config import Config
from systola_firmware.spec.dma import Descriptor
from systola_firmware.spec.memory_map import DMA_REGISTERS, DmaControl, DmaStatus, Region, region_bytes
from systola_hdl.dma.engine import DmaEngine
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.memory.weight_memory import WeightMemory
from systola_hdl.host.program_store import ProgramStore

__all__ = ["RECORD", "RING", "DmaBench"]

#: Offsets in the host's memory.
RECORD, RING = 0x40, 0x100


class _Memories(Elaboratable):
    """The DMA engine and the memories; the others' ports are left to the test."""

    def __init__(self, config: Config) -> None:
        self.dma = DmaEngine(config)
        self.activation = ActivationMemory(config)
        self.weight = WeightMemory(config)
        self.program = ProgramStore(config)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.dma = self.dma
        for name in ("activation", "weight", "program"):
            memory = getattr(self, name)
            m.submodules[name] = memory
            connect(m, getattr(self.dma, f"read_{name}"), memory.dma_read)
            connect(m, getattr(self.dma, f"write_{name}"), memory.dma_write)
        return m


class DmaBench:
    """Descriptors in, host memory and a record out.

    Parameters
    ----------
    config:
        Engine.
    seed:
        Of the host's memory and the link's stalls.
    size:
        Bytes of the host's memory.
    ring_size, latency, busy:
        Of the ring, and see :class:`~support.pcie.host_memory.HostLink`.
    program_cycles:
        How long a program pretends to run.
    """

    def __init__(
        self,
        config: Config,
        seed: object,
        *,
        size: int = 4096,
        ring_size: int = 8,
        latency: int = 1,
        busy: float = 0.0,
        program_cycles: int = 50,
    ) -> None:
        self.config, self.ring_size, self.program_cycles = config, ring_size, program_cycles
        self.rng = random.Random(str(seed))
        self.dut = _Memories(config)
        self.host = PlainHost(bytearray(self.rng.randbytes(size)))
        self.link = HostLink(self.dut.dma.host, self.host, self.rng, latency=latency, busy=busy)
        self.bus = BusDriver(self.dut.dma.registers)
        self.rung = 0
        self.starts: list[tuple[int, int]] = []  #: cycle and address of each RUN
        self.ends: list[int] = []
        self.failing_starts: set[int] = set()  #: addresses of programs that end with an error
        self.noise = 0.0  #: probability that the engine's own units read a memory in a cycle

    async def register(self, ctx: Any, name: str) -> int:
        return await self.bus.read(ctx, DMA_REGISTERS[name].offset)

    async def write(self, ctx: Any, name: str, value: int) -> None:
        await self.bus.write(ctx, DMA_REGISTERS[name].offset, value)

    async def set_up(self, ctx: Any) -> None:
        """Tell where ring and record are."""
        self.rung = 0
        for name, offset in (("ring", RING), ("record", RECORD)):
            await self.write(ctx, f"{name}_low", BASE + offset & 0xFFFFFFFF)
            await self.write(ctx, f"{name}_high", BASE + offset >> 32)
        await self.write(ctx, "ring_size", self.ring_size)

    async def ring(self, ctx: Any, descriptors: Sequence[Descriptor | bytes]) -> None:
        """Append descriptors to the ring and ring the doorbell."""
        for descriptor in descriptors:
            raw = descriptor if isinstance(descriptor, bytes) else descriptor.encode()
            at = RING + len(raw) * (self.rung % self.ring_size)
            self.host.memory[at : at + len(raw)] = raw
            self.rung += 1
        await self.write(ctx, "doorbell", self.rung)

    async def settle(self, ctx: Any, limit: int = 4000) -> int:
        """Wait until nothing is to be done; STATUS."""
        for _ in range(limit):
            status = await self.register(ctx, "status")
            if not status & DmaStatus.BUSY:
                return status
        raise AssertionError("the DMA engine hangs")

    async def reset(self, ctx: Any) -> None:
        await self.write(ctx, "control", DmaControl.RESET)
        assert not await self.settle(ctx) & DmaStatus.STOPPED

    async def _pretend(self, ctx: Any) -> None:
        """The engine."""
        dma, left, address = self.dut.dma, 0, 0
        while True:
            _, _, start, start_address = await ctx.tick().sample(dma.start, dma.start_address)
            if start:
                assert left == 0
                left, address = self.program_cycles, start_address
                self.starts.append((self.link.cycle, address))
                ctx.set(dma.busy, 1)
                ctx.set(dma.error, 0)
            elif left:
                left -= 1
                if left == 0:
                    self.ends.append(self.link.cycle)
                    ctx.set(dma.busy, 0)
                    ctx.set(dma.error, address in self.failing_starts)

    async def _disturb(self, ctx: Any) -> None:
        """The engine's units, at their ports."""
        dut, rng = self.dut, random.Random(5)
        ports = (dut.activation.read_post, dut.activation.read_stream, dut.weight.read_post, dut.weight.read_loader)
        switches = [*(port.valid for port in ports), dut.program.fetch_enable]
        for port in ports:
            ctx.set(port.address, 1)
        while True:
            for switch in switches:
                ctx.set(switch, rng.random() < self.noise)
            await ctx.tick()

    def run(self, bench: Callable[[Any], Awaitable[None]]) -> None:
        dut = self.dut
        blocks = {"dma": dut.dma, "activation": dut.activation, "weight": dut.weight, "program": dut.program}
        simulator = simulator_of(dut, blocks)
        simulator.add_testbench(bench)
        for process in (self.link.serve, self._pretend, *([self._disturb] if self.noise else [])):
            simulator.add_testbench(process, background=True)
        simulator.run()

    async def device_bytes(self, ctx: Any, region: Region) -> bytes:
        """All of a memory, through its other host port."""
        port: Any = {Region.PROGRAM: self.dut.program, Region.ACTIVATION: self.dut.activation, Region.WEIGHT: self.dut.weight}[
            region
        ]
        return await BusDriver(port.host).read_bytes(ctx, 0, region_bytes(self.config, region))
