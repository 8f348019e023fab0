"""A whole device on PCIe: the driver that real ones have, root complex, hard block, and the engine with its DMA in
Verilog."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
import pytest
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge, SimTimeoutError, Timer, with_timeout
from cocotbext.axi import Region
from cocotbext.pcie.core.tlp import Tlp, TlpType
from cocotbext.pcie.core.utils import PcieId
from pcie_bench import HardBlock, block_class
from support.models.files import DIGITS_MODEL
from support.oracle.agreement import check_outputs, sets_for
from support.oracle.tflm import Oracle

from systola.device import Device
from systola.errors import LinkError
from systola.transports.pcie.function import ALL_ONES
from systola.transports.pcie.ring import RingStopped
from systola.transports.pcie.simulated import BufferMemory, SimulatedFunction
from systola.transports.pcie.transport import PcieTransport
from systola_firmware.spec.dma import Descriptor, DmaError, DmaKind
from systola_firmware.spec.memory_map import Region as MapRegion
from systola_firmware.spec.pcie import bar_bytes
from systola_firmware.spec.presets import preset

CONFIG = preset(os.environ["SYSTOLA_PCIE_PRESET"])
BASE, BYTES = 1 << 32, 1 << 36  #: where the root complex looks for the driver's buffers
UNMAPPED = BASE + BYTES


class Buffers(Region):
    """The driver's buffers as the root complex reaches them."""

    def __init__(self, memory: BufferMemory) -> None:
        super().__init__(BYTES)
        self._memory = memory

    async def _read(self, address: int, length: int, **_arguments: Any) -> bytes:
        return self._memory.read(BASE + address, length)

    async def _write(self, address: int, data: bytes, **_arguments: Any) -> None:
        self._memory.write(BASE + address, bytes(data))


class BenchFunction(SimulatedFunction):
    """The function behind the root complex; for a driver in a thread of its own (``cocotb.task.bridge``)."""

    def __init__(self, block: HardBlock) -> None:
        super().__init__(CONFIG, "pcie:bench")
        self._block = block
        self.removed = False
        self.interrupts = 0
        block.root.mem_address_space.register_region(Buffers(self._buffers), BASE)

    def _read(self, offset: int) -> int:
        async def read() -> int:
            if self.removed:
                return ALL_ONES
            return int(await self._block.bar.read_dword(offset, timeout=100000))

        return resume(read)()

    def _write(self, offset: int, value: int) -> None:
        async def write() -> None:
            if not self.removed:
                await self._block.bar.write_dword(offset, value)

        resume(write)()

    def wait_interrupt(self, seconds: float) -> bool:
        """``seconds`` are the world's, of which the simulation takes many for a few of its microseconds."""

        async def wait() -> bool:
            try:
                await with_timeout(self._block.interrupt.wait(), min(50, 1e6 * seconds), "us", round_mode="ceil")
            except SimTimeoutError:
                return False
            self._block.interrupt.clear()
            self.interrupts += 1
            return True

        return resume(wait)()

    def pump(self, seconds: float) -> None:
        async def wait() -> None:
            await Timer(max(1, round(1e6 * seconds)), "us")

        resume(wait)()


async def start(dut: Any, **sizes: Any) -> tuple[HardBlock, BenchFunction]:
    block = block_class()(dut, bar_bytes(CONFIG))
    dut.rx.value = 1
    await block.enumerate(**{"max_payload": 256, **sizes})
    return block, BenchFunction(block)


async def drive(function: BenchFunction, work: Callable[[Device, PcieTransport], None]) -> None:
    """Let a driver work in a thread."""

    def run() -> None:
        transport = PcieTransport(function, timeout=600)
        with Device(transport) as device:
            work(device, transport)

    await bridge(run)()


class Idle:
    """Counts the cycles from the first start of a program to the end of the last, and those between in which none
    runs."""

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self.cycles = self.idle = self.runs = 0

    async def watch(self) -> None:
        started = waiting = 0
        before = False
        cycle = 0
        while True:
            await RisingEdge(self._dut.clk)
            cycle += 1
            busy = bool(int(self._dut.busy.value))
            if busy and not before:
                started = started or cycle
                self.idle += waiting
                waiting = 0
            elif before and not busy:
                self.runs += 1
                self.cycles = cycle - started
            waiting += bool(started) and not busy
            before = busy


@cocotb.test()
async def model(dut: Any) -> None:
    """A whole model is loaded, read back and run, and answers as TensorFlow Lite Micro does, bit for bit; with
    pauses."""
    block, function = await start(dut)
    path = Path(os.environ.get("SYSTOLA_PCIE_MODEL", DIGITS_MODEL))
    if path == DIGITS_MODEL:
        block.pause(random.Random(1), 0.1)

    def work(device: Device, _transport: PcieTransport) -> None:
        session = device.load(path, verify=True)
        assert check_outputs(path.name, session, Oracle(path), sets_for(session, 2, seed=3)) > 0

    await drive(function, work)
    assert function.interrupts
    block.finish()


@cocotb.test()
async def back_to_back(dut: Any) -> None:
    """Inferences in flight: how long the engine idles between them."""
    block, function = await start(dut)
    path = Path(os.environ.get("SYSTOLA_PCIE_MODEL", DIGITS_MODEL))
    idle = Idle(dut)
    most = float(os.environ["SYSTOLA_PCIE_IDLE"])

    def work(device: Device, _transport: PcieTransport) -> None:
        session = device.load(path)
        shape = session.inputs[0].shape
        x = np.random.default_rng(4).integers(-128, 128, (4, *shape), dtype=np.int8)
        watcher = resume(begin)()
        answers = session.run(x)
        resume(end)(watcher)
        for values, answer in zip(x, answers, strict=True):
            np.testing.assert_array_equal(answer, Oracle(path).run(values)[0].reshape(answer.shape))

    async def begin() -> Any:
        return cocotb.start_soon(idle.watch())

    async def end(watcher: Any) -> None:
        watcher.cancel()

    await drive(function, work)
    assert idle.runs == 4
    share = idle.idle / idle.cycles
    print(f"IDLE {path.name}: {idle.idle} of {idle.cycles} cycles between {idle.runs} inferences, {share:.2%}")
    assert share <= most
    block.finish()


@cocotb.test()
async def faults(dut: Any) -> None:
    """Unmapped memory, a memory that aborts, silence, poison, a reset of the link, removal: each its error, then it
    works again."""
    block, function = await start(dut)
    create = Tlp.create_completion_data_for_tlp
    handle = block.root.rx_tlp_handler[TlpType.MEM_READ_64]

    def poisoned(tlp: Tlp, completer: PcieId) -> Tlp:
        completion = create(tlp, completer)
        completion.ep = True
        return completion

    async def lose(_tlp: Tlp) -> None:
        return None

    def work(device: Device, transport: PcieTransport) -> None:
        session = device.load(DIGITS_MODEL)
        oracle = Oracle(DIGITS_MODEL)
        ring, staging = transport._ring, transport._staging.address

        def alive() -> None:
            assert check_outputs("digits", session, oracle, sets_for(session, 1, seed=5)) > 0

        def fails(descriptor: Descriptor, *errors: DmaError) -> None:
            with pytest.raises(RingStopped) as stopped:
                ring.wait(ring.submit([descriptor]))
            assert stopped.value.error in errors, stopped.value
            alive()

        def transfer(address: int, kind: DmaKind = DmaKind.TO_DEVICE) -> Descriptor:
            return Descriptor(kind, 4096, MapRegion.ACTIVATION.base, address)

        alive()
        fails(transfer(UNMAPPED), DmaError.UNSUPPORTED_REQUEST)
        fails(transfer(UNMAPPED - 8192), DmaError.COMPLETER_ABORT)  # mapped for the root complex, no buffer

        Tlp.create_completion_data_for_tlp = staticmethod(once(poisoned))
        block.faulty = 1
        fails(transfer(staging), DmaError.POISONED)
        block.forget()

        resume(asynchronously(lambda: block.root.register_rx_tlp_handler(TlpType.MEM_READ_64, after(3, lose))))()
        fails(transfer(staging), DmaError.TIMEOUT)

        event = ring.submit([transfer(staging)] * 40)
        resume(reset)()
        with pytest.raises(LinkError, match="link"):
            ring.wait(event)
        alive()

        function.removed = True
        with pytest.raises(LinkError):
            session.run(sets_for(session, 1, seed=6)[0][0])
        function.removed = False
        alive()

    def once(broken: Callable[[Tlp, PcieId], Tlp]) -> Callable[[Tlp, PcieId], Tlp]:
        def completion(tlp: Tlp, completer: PcieId) -> Tlp:
            if tlp.length < 16:  # not the descriptor itself
                return create(tlp, completer)
            Tlp.create_completion_data_for_tlp = create
            return broken(tlp, completer)

        return completion

    def after(_count: int, lose: Callable[[Tlp], Any]) -> Callable[[Tlp], Any]:
        async def receive(tlp: Tlp) -> None:
            if tlp.length < 16:
                await handle(tlp)
                return
            block.root.register_rx_tlp_handler(TlpType.MEM_READ_64, handle)
            await lose(tlp)

        return receive

    def asynchronously(do: Callable[[], None]) -> Callable[[], Any]:
        async def done() -> None:
            do()

        return done

    async def reset() -> None:
        await Timer(2, "us")
        await block.reset_link()

    await drive(function, work)
    block.finish(unanswered=True)
