"""The PCIe transport before the golden engine: blocks, inferences in flight, and every failure with the device usable
after it."""

from __future__ import annotations

import numpy as np
import pytest
from support.programs.small_program import CHANNELS, small_program

import systola
from systola.transports.pcie.ring import RING_SIZE
from systola.transports.pcie.simulated import BufferMemory, GoldenFunction
from systola.transports.pcie.transport import PcieTransport
from systola_firmware.spec.config import Config
from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.memory_map import Region, dma_register_address, register_address
from systola_firmware.spec.presets import preset
from systola_sim.machine.dma_model import TransferError

CONFIG = preset("tiny-8x4-dma")
#: Seconds without progress before these tests' devices are given up: quick, and long enough for a loaded machine.
PATIENCE = 0.3


class Faulty(GoldenFunction):
    """A golden function that can be pulled, go deaf, or lose its memory's mapping, its host or its program."""

    def __init__(self, config: Config = CONFIG, memory: BufferMemory | None = None) -> None:
        super().__init__(config, memory)
        self._buffers = memory or self._buffers
        self.removed = self.deaf = False
        self.resets = 0
        self.words = {"read": 0, "written": 0}

    def _read(self, offset: int) -> int:
        self.words["read"] += 1
        return 0xFFFF_FFFF if self.removed else super()._read(offset)

    def _write(self, offset: int, value: int) -> None:
        self.words["written"] += 1
        if not self.removed and not (self.deaf and offset == Region.DMA << self.window | 0x10):  # the doorbell
            super()._write(offset, value)

    def reset(self) -> bool:
        self.resets += 1
        return False


class Moody(BufferMemory):
    """Buffers of which the device's ``at``-th access fails with ``error``."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.error = -1, DmaError.NONE

    def _part(self, address: int, length: int) -> memoryview:
        self.at -= 1
        if self.at == -1:
            raise TransferError(self.error)
        return super()._part(address, length)


@pytest.fixture
def function() -> Faulty:
    return Faulty()


@pytest.fixture
def device(function: Faulty) -> systola.Device:
    device = systola.Device(PcieTransport(function, timeout=PATIENCE))
    device.transport.has_cycles = False
    return device


def inputs(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(-100, 100, (count, 1, CHANNELS), dtype=np.int8)


def works(device: systola.Device) -> bool:
    """Load, run one and several: all answers right."""
    x = inputs(9)
    session = device.load(small_program(CONFIG), verify=True)
    return bool((session.run(x) == x + 3).all() and (session.run(x[0]) == x[0] + 3).all())


def test_the_doorbell_is_where_the_fault_thinks() -> None:
    assert dma_register_address("doorbell") == Region.DMA.base + 0x10


def test_blocks_of_every_size_come_back(device: systola.Device, function: Faulty) -> None:
    transport, generator = device.transport, np.random.default_rng(1)
    for region, size in {Region.WEIGHT: CONFIG.weight_bytes, Region.ACTIVATION: CONFIG.activation_bytes}.items():
        for length in (0, 4, 60, 64, 68, 4096, 4100, size):
            for start in {0, 4 * int(generator.integers((size - length) // 4 + 1)), size - length}:
                data = generator.bytes(length)
                transport.write(region.base + start, data)
                assert transport.read(region.base + start, length) == data
                assert length == 0 or function.device.board.read(region.base + start, length // 4) == data


def test_blocks_move_by_dma_and_registers_by_words(device: systola.Device, function: Faulty) -> None:
    device.transport.write(Region.WEIGHT.base, bytes(CONFIG.weight_bytes))  # the ring is set up
    function.words = dict.fromkeys(function.words, 0)
    device.transport.write(Region.WEIGHT.base, bytes(CONFIG.weight_bytes))
    assert function.words["written"] == 1
    assert device.transport.read(Region.WEIGHT.base, CONFIG.weight_bytes) == bytes(CONFIG.weight_bytes)
    assert function.words["written"] == 2
    assert function.words["read"] < 40
    device.transport.write(register_address("scratch"), b"\1\2\3\4")
    assert device.transport.read(register_address("scratch"), 4) == b"\1\2\3\4"
    assert function.words["written"] == 3


def test_blocks_larger_than_the_staging_memory_go_in_transfers(device: systola.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("systola.transports.pcie.transport._STAGING_BYTES", 1000)
    data = np.random.default_rng(3).bytes(4196)
    device.transport.write(Region.ACTIVATION.base + 8, data)
    assert device.transport.read(Region.ACTIVATION.base + 8, len(data)) == data


@pytest.mark.parametrize("count", [2, 7, RING_SIZE + 5])
def test_several_inferences_are_in_flight(device: systola.Device, function: Faulty, count: int) -> None:
    session = device.load(small_program(CONFIG))
    x = inputs(count)
    ahead = []
    write = function.device.write

    def watched(address: int, data: bytes) -> None:
        if address == dma_register_address("doorbell"):
            completed = int.from_bytes(function.device.read(dma_register_address("completed"), 1), "little")
            ahead.append((int.from_bytes(data, "little") - completed) / 4)  # input, run, output, event
        write(address, data)

    function.device.write = watched  # type: ignore[method-assign]
    np.testing.assert_array_equal(session.run(x), x + 3)
    assert min(count, 60) <= max(ahead) <= RING_SIZE / 4


def test_a_program_that_stops_is_told_as_on_any_device_and_the_device_lives_on(device: systola.Device) -> None:
    session = device.load(small_program(CONFIG, second_source=CONFIG.activation_bytes))
    for x in (inputs(1)[0], inputs(3)):
        with pytest.raises(systola.DeviceError, match="stopped in layer second: an address outside the activation memory"):
            session.run(x)
    assert works(device)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DmaError.TIMEOUT, "memory did not answer the device in time"),
        (DmaError.UNSUPPORTED_REQUEST, "refused an address in the computer's memory that is not mapped for it"),
        (DmaError.COMPLETER_ABORT, "refused the device an access to its memory"),
        (DmaError.POISONED, "data arrived at the device marked as corrupt"),
        (DmaError.MALFORMED, "an answer that does not fit its request"),
        (DmaError.BUS_MASTER_DISABLED, "has taken away the device's access to its memory"),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2, 5, 13])
def test_a_failed_access_to_memory_has_its_sentence_wherever_it_happens(error: DmaError, sentence: str, at: int) -> None:
    memory = Moody()
    function = Faulty(CONFIG, memory)
    device = systola.Device(PcieTransport(function, timeout=PATIENCE))
    device.transport.has_cycles = False
    session = device.load(small_program(CONFIG))
    memory.at, memory.error = at, error
    with pytest.raises(systola.LinkError, match=f"{sentence} .{error.name}.$"):
        session.run(inputs(6))
    np.testing.assert_array_equal(session.run(inputs(6)), inputs(6) + 3)
    assert works(device)


@pytest.mark.parametrize("action", ["write", "read"])
def test_a_block_that_fails_can_be_moved_again(action: str) -> None:
    memory = Moody()
    device = systola.Device(PcieTransport(Faulty(CONFIG, memory), timeout=PATIENCE))
    memory.at, memory.error = 1, DmaError.POISONED
    move = {"write": lambda: device.transport.write(Region.WEIGHT.base, b"1234" * 99)}
    move["read"] = lambda: device.transport.read(Region.WEIGHT.base, 396)  # type: ignore[assignment, return-value]
    with pytest.raises(systola.LinkError, match="marked as corrupt"):
        move[action]()
    move["write"]()
    assert device.transport.read(Region.WEIGHT.base, 396) == b"1234" * 99


@pytest.mark.parametrize("back", [True, False])
def test_a_link_that_goes_down_in_mid_transfer(device: systola.Device, function: Faulty, back: bool) -> None:
    session = device.load(small_program(CONFIG))
    function.device.link_up = False
    with pytest.raises(systola.LinkError, match=r"the link went down during a transfer \(LINK_DOWN\)"):
        session.run(inputs(4))
    function.device.link_up = back
    if back:
        np.testing.assert_array_equal(session.run(inputs(4)), inputs(4) + 3)
        assert works(device)
    else:
        with pytest.raises(systola.LinkError, match="LINK_DOWN"):
            session.run(inputs(4))


def test_a_device_that_is_pulled_reads_all_ones(device: systola.Device, function: Faulty) -> None:
    session = device.load(small_program(CONFIG))
    function.removed = True
    for action in (lambda: session.run(inputs(1)[0]), lambda: session.run(inputs(3)), device.registers):
        with pytest.raises(systola.LinkError, match=r"gone.*: it reads all ones"):
            action()
    function.removed = False
    np.testing.assert_array_equal(session.run(inputs(4)), inputs(4) + 3)
    assert function.resets == 2  # tried at each use in between


def test_a_device_that_comes_back_empty_is_not_gone_on_with(device: systola.Device, function: Faulty) -> None:
    session = device.load(small_program(CONFIG))
    function.removed = True
    with pytest.raises(systola.LinkError, match=r"is gone, or its link was reset"):
        session.run(inputs(2))
    function.removed = False
    function.device.board.write(register_address("scratch"), bytes(4))
    with pytest.raises(systola.LinkError, match=r"was configured anew and has lost its program: open it again"):
        session.run(inputs(2))


def test_all_ones_in_memory_are_data(device: systola.Device) -> None:
    ones = b"\xff" * 8
    device.transport.write(Region.ACTIVATION.base, ones)
    assert device.transport.read(Region.ACTIVATION.base, 8) == ones
    device.transport.write(register_address("scratch"), ones[:4])
    assert device.registers()["scratch"] == 0xFFFF_FFFF


def test_a_device_that_does_nothing_is_given_up_in_time_and_usable_when_it_listens_again(
    device: systola.Device, function: Faulty
) -> None:
    session = device.load(small_program(CONFIG))
    function.deaf = True
    with pytest.raises(systola.LinkError, match=r"stopped working: nothing was done for 0\.3 s"):
        session.run(inputs(2))
    function.deaf = False
    assert works(device)


def test_a_device_that_stays_busy_after_a_reset_is_given_up(device: systola.Device, function: Faulty) -> None:
    session = device.load(small_program(CONFIG))
    function.device.link_up = False
    with pytest.raises(systola.LinkError, match="LINK_DOWN"):
        session.run(inputs(2))
    function.device.link_up = True
    function.device._reset = lambda: None  # type: ignore[method-assign]
    function.device._error = DmaError.NONE
    function.device.run = lambda _descriptors=1: None  # type: ignore[method-assign]
    with pytest.raises(systola.LinkError, match="is still busy after a reset: switch it off and on"):
        session.run(inputs(2))
    assert function.resets == 1


def test_an_interruption_by_the_user_leaves_no_transfer_behind(
    device: systola.Device, function: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = device.load(small_program(CONFIG))

    def interrupted(_seconds: float) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(function, "wait_interrupt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.run(inputs(5))
    assert works(device)
    session = device.load(small_program(CONFIG))
    written = []

    def third(offset: int, value: int) -> None:
        written.append(offset)
        if len(written) == 3:
            raise KeyboardInterrupt
        GoldenFunction._write(function, offset, value)

    with monkeypatch.context() as patch:
        patch.setattr(function, "_write", third)
        with pytest.raises(KeyboardInterrupt):
            session.run(inputs(5))
    np.testing.assert_array_equal(session.run(inputs(5)), inputs(5) + 3)
    assert function.device.read(dma_register_address("completed"), 1) == (4 * 5).to_bytes(4, "little")


def test_lost_interrupts_cost_time_only(device: systola.Device, function: Faulty) -> None:
    function.device._interrupt = lambda: None
    assert works(device)


@pytest.mark.parametrize(
    "address", [Region.TRACE.base + 4 * 640, Region.WEIGHT.base + CONFIG.weight_bytes - 4, 0x6000_0000, 0x0000_0200]
)
def test_where_there_is_no_memory_the_device_is_not_asked(device: systola.Device, function: Faulty, address: int) -> None:
    function.words = dict.fromkeys(function.words, 0)
    with pytest.raises(systola.AddressError, match=f"has no memory there: {address:#010x}"):
        device.transport.read(address, 128)
    with pytest.raises(systola.AddressError, match="has no memory there"):
        device.transport.write(address, bytes(128))
    assert function.words == {"read": 0, "written": 0}


def test_accesses_are_in_whole_words(device: systola.Device) -> None:
    with pytest.raises(ValueError, match="whole words: 3 bytes"):
        device.transport.read(0, 3)
    with pytest.raises(ValueError, match="whole words: 4 bytes at 0x2"):
        device.transport.write(2, bytes(4))


class Small(Faulty):
    """With a BAR0 of another size than any of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.bar_bytes = 4096


class Foreign(Faulty):
    """Another identity, or none of the DMA engine, or nothing at all."""

    def __init__(self, replaced: int, value: int) -> None:
        super().__init__()
        self.replaced, self.value = replaced, value

    def _read(self, offset: int) -> int:
        return self.value if offset == self.replaced or self.replaced < 0 else super()._read(offset)


@pytest.mark.parametrize(
    ("make", "kind", "sentence"),
    [
        (Small, systola.DeviceError, "is not a Systola device: it has a BAR0 of 4096 bytes"),
        (lambda: Foreign(0, 0x12345678), systola.DeviceError, "its identity register reads 0x12345678"),
        (lambda: Foreign(Region.DMA << 20, 0), systola.DeviceError, "has no DMA engine"),
        (lambda: Foreign(-1, 0xFFFF_FFFF), systola.LinkError, "is gone, or its link was reset: it reads all ones"),
    ],
)
def test_what_is_no_device_of_ours_is_refused_and_closed(make: object, kind: type[Exception], sentence: str) -> None:
    function: Faulty = make()  # type: ignore[operator]
    with pytest.raises(kind, match=sentence):
        PcieTransport(function)
    with pytest.raises(systola.LinkError, match="is closed"):
        function.read_word(0)


def test_an_engine_without_dma_is_refused() -> None:
    with pytest.raises(systola.DeviceError, match=r"has no DMA engine|reads all ones"):
        PcieTransport(GoldenFunction(preset("tiny-8x4")))


def test_by_name() -> None:
    with systola.open("pcie:golden:tiny-8x4-dma") as device:
        assert str(device) == "pcie:golden:tiny-8x4-dma"
        assert device.config.name in ("tiny-8x4-dma", "tiny-8x4")
        assert not device.has_cycles
    with pytest.raises(systola.SystolaError, match=r"'0000:77' is not the address of a PCIe device"):
        systola.open("pcie:0000:77")
    with pytest.raises(systola.LinkError, match=r"there is no PCIe device 0000:fe:1f\.7"):
        systola.open("pcie:fe:1f.7")
