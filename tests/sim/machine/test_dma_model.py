"""The model of the DMA engine: what each descriptor does, what it refuses, and what it then says."""

from __future__ import annotations

import numpy as np
import pytest
from support.programs.small_program import CHANNELS, small_program

from systola_firmware.spec.dma import DESCRIPTOR_BYTES, RECORD_BYTES, Descriptor, DmaError, DmaKind, StatusRecord
from systola_firmware.spec.memory_map import DMA_IDENTITY, DMA_REGISTERS, DmaStatus, Region, Status, dma_register_address
from systola_firmware.spec.presets import preset
from systola_sim.machine.dma_model import DmaModel, TransferError
from systola_sim.machine.golden_board import BadAddressError

CONFIG = preset("tiny-8x4-dma")
RING, RECORD, DATA, SIZE = 0x1_0000_0000, 0x1_0000_1000, 0x1_0000_2000, 8


class Memory:
    """64 KiB from :data:`RING` on."""

    def __init__(self) -> None:
        self.content = bytearray(1 << 16)

    def _place(self, address: int, length: int) -> slice:
        if not RING <= address <= RING + len(self.content) - length:
            raise TransferError(DmaError.UNSUPPORTED_REQUEST)
        return slice(address - RING, address - RING + length)

    def read(self, address: int, length: int, /) -> bytes:
        return bytes(self.content[self._place(address, length)])

    def write(self, address: int, data: bytes, /) -> None:
        self.content[self._place(address, len(data))] = data


class Bench:
    """A model with its ring set up; :meth:`do` puts descriptors into it."""

    def __init__(self) -> None:
        self.memory, self.events, self.count = Memory(), 0, 0
        self.model = DmaModel(CONFIG, self.memory, self._event)
        self.set_up()

    def _event(self) -> None:
        self.events += 1

    def set(self, name: str, value: int) -> None:
        self.model.write(dma_register_address(name), value.to_bytes(4, "little"))

    def get(self, name: str) -> int:
        return int.from_bytes(self.model.read(dma_register_address(name), 1), "little")

    def set_up(self) -> None:
        self.set("control", 1)
        self.count = 0
        for name, value in {"ring": RING, "record": RECORD}.items():
            self.set(f"{name}_low", value & 0xFFFF_FFFF)
            self.set(f"{name}_high", value >> 32)
        self.set("ring_size", SIZE)

    def do(self, *descriptors: Descriptor | bytes) -> None:
        for descriptor in descriptors:
            content = descriptor if isinstance(descriptor, bytes) else descriptor.encode()
            self.memory.write(RING + self.count % SIZE * DESCRIPTOR_BYTES, content)
            self.count += 1
        self.set("doorbell", self.count)
        self.model.run(len(descriptors))

    @property
    def record(self) -> StatusRecord:
        return StatusRecord.decode(self.memory.read(RECORD, RECORD_BYTES))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("region", "start", "length"), [(Region.ACTIVATION, 3, 1), (Region.ACTIVATION, 5, 18), (Region.WEIGHT, 8, 12)]
)
def test_bytes_move_both_ways_and_nothing_beside_them(bench: Bench, region: Region, start: int, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    before = bytes(range(64))
    bench.model.write(region.base, before)
    bench.memory.write(DATA + 1, data)
    bench.do(
        Descriptor(DmaKind.TO_DEVICE, length, region.base + start, DATA + 1),
        Descriptor(DmaKind.FROM_DEVICE, length, region.base + start, DATA + 100),
    )
    assert bench.memory.read(DATA + 100, length + 1) == data + b"\0"
    assert bench.model.read(region.base, 16) == before[:start] + data + before[start + length :]
    assert (bench.get("completed"), bench.get("status")) == (2, DmaStatus.LINK_UP)


def test_a_program_runs_and_the_record_tells_its_end(bench: Bench) -> None:
    program = small_program(CONFIG)
    bench.model.write(Region.PROGRAM.base, np.asarray(program.words, "<u4").tobytes())
    for address, data in program.constants:
        bench.model.write(Region.ACTIVATION.base + address, data)
    (binding,) = program.inputs
    (answer,) = program.outputs
    x = np.arange(CHANNELS, dtype=np.int8)
    bench.memory.write(DATA, binding.pack([x.reshape(binding.shape)]))
    bench.do(
        Descriptor(DmaKind.TO_DEVICE, binding.placement.size, Region.ACTIVATION.base + binding.placement.start, DATA),
        Descriptor(DmaKind.RUN),
        Descriptor(DmaKind.FROM_DEVICE, answer.placement.size, Region.ACTIVATION.base + answer.placement.start, DATA + 256),
        Descriptor(DmaKind.RECORD, host_address=DATA + 512),
        Descriptor(DmaKind.FENCE),
        Descriptor(DmaKind.INTERRUPT),
    )
    np.testing.assert_array_equal(answer.unpack(bench.memory.read(DATA + 256, answer.placement.size))[0].ravel(), x + 3)
    first = StatusRecord.decode(bench.memory.read(DATA + 512, RECORD_BYTES))
    assert (first.completed, first.sequence, first.engine_status, first.error) == (4, 1, Status.DONE, DmaError.NONE)
    assert (bench.record.completed, bench.record.sequence, bench.record.doorbell, bench.events) == (6, 2, 6, 1)


@pytest.mark.parametrize(
    ("descriptor", "error"),
    [
        (bytes(32), DmaError.BAD_DESCRIPTOR),
        (bytes([7]) + bytes(31), DmaError.BAD_DESCRIPTOR),
        (bytes([DmaKind.FENCE, 2]) + bytes(30), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.TO_DEVICE, 0, Region.ACTIVATION.base, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.TO_DEVICE, 4, 0, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.TO_DEVICE, 4, Region.TRACE.base, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.FROM_DEVICE, 4, 0xF000_0000, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.FROM_DEVICE, 3, Region.WEIGHT.base, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.FROM_DEVICE, 4, Region.PROGRAM.base + 2, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.FROM_DEVICE, 5, Region.ACTIVATION.base + CONFIG.activation_bytes - 4, DATA), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.RECORD, host_address=DATA + 4), DmaError.BAD_DESCRIPTOR),
        (Descriptor(DmaKind.FROM_DEVICE, 4, Region.WEIGHT.base, 0x1000), DmaError.UNSUPPORTED_REQUEST),
        (Descriptor(DmaKind.RUN, device_address=CONFIG.program_words - 1), DmaError.PROGRAM_FAILED),
    ],
)
def test_an_error_stops_the_ring_until_a_reset(bench: Bench, descriptor: Descriptor | bytes, error: DmaError) -> None:
    bench.model.write(Region.PROGRAM.base + 4 * CONFIG.program_words - 4, b"\xff" * 4)  # no instruction
    bench.do(Descriptor(DmaKind.FENCE), descriptor, Descriptor(DmaKind.INTERRUPT))
    assert (bench.record.error, bench.record.completed, bench.record.sequence, bench.events) == (error, 1, 1, 1)
    assert bench.get("status") == DmaStatus.STOPPED | DmaStatus.LINK_UP | error << 8
    assert not bench.model.busy
    bench.set_up()
    bench.do(Descriptor(DmaKind.INTERRUPT))
    assert (bench.record.error, bench.record.completed, bench.events) == (DmaError.NONE, 1, 2)


@pytest.mark.parametrize(
    ("name", "value"), [("ring_size", 0), ("ring_size", 6), ("ring_low", 16), ("record_low", 4), ("doorbell", SIZE + 1)]
)
def test_a_ring_that_cannot_be_right_is_refused(bench: Bench, name: str, value: int) -> None:
    bench.set(name, value)
    if name != "doorbell":
        bench.set("doorbell", 1)
    bench.model.run()
    assert bench.get("status") >> 8 == DmaError.BAD_RING
    assert bench.get("completed") == 0


def test_a_link_that_is_down_is_told_when_it_is_up_again(bench: Bench) -> None:
    bench.model.link_up = False
    bench.do(Descriptor(DmaKind.FENCE))
    assert bench.get("status") == DmaStatus.STOPPED | DmaError.LINK_DOWN << 8
    assert bench.events == 0
    bench.model.link_up = True
    assert bench.get("status") & DmaStatus.LINK_UP
    bench.set_up()
    bench.do(Descriptor(DmaKind.INTERRUPT))
    assert bench.events == 1


def test_the_ring_goes_round(bench: Bench) -> None:
    for _ in range(5 * SIZE):
        bench.do(Descriptor(DmaKind.FENCE))
    assert bench.get("completed") == 5 * SIZE


def test_registers_and_the_end_of_the_region(bench: Bench) -> None:
    assert bench.get("identity") == DMA_IDENTITY
    assert bench.get("ring_size") == SIZE
    for access in (lambda address: bench.model.read(address, 1), lambda address: bench.model.write(address, bytes(4))):
        with pytest.raises(BadAddressError):
            access(Region.DMA.base + 4 * len(DMA_REGISTERS))
    plain = DmaModel(preset("tiny-8x4"), bench.memory, lambda: None)
    with pytest.raises(BadAddressError):
        plain.read(Region.DMA.base, 1)
