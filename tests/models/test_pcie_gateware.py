"""The driver before the real gateware: DMA engine and TLP endpoint in Verilator; every packet passes the project's
monitor.

The board's memories are those of :mod:`support.benches.collisions`: no answer may depend on a word that is read while
it is written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from support.benches.collisions import colliding_pcie_library
from support.models.files import DIGITS_MODEL, model_path
from support.oracle.agreement import check_outputs, sets_for
from support.oracle.tflm import Oracle
from support.pcie.tlp_monitor import TlpMonitor

import systola
from systola.transports.pcie import verilated
from systola.transports.pcie.simulated import BufferMemory
from systola.transports.pcie.transport import PcieTransport
from systola.transports.pcie.verilated import VerilatedFunction
from systola_firmware.spec.dma import DmaError
from systola_firmware.spec.memory_map import Region
from systola_firmware.spec.presets import preset
from systola_hdl.tops.pcie_simulation import FUNCTION_ID
from systola_sim.machine.dma_model import TransferError
from systola_sim.verilated.pcie_harness import pcie_library

CONFIG = preset("tiny-8x4-dma")
PATIENCE = 60.0


class Moody(BufferMemory):
    """Buffers of which the device's ``at``-th read from now on fails with ``error``."""

    def __init__(self) -> None:
        super().__init__()
        self.at, self.error = -1, DmaError.NONE

    def read(self, address: int, length: int, /) -> bytes:
        self.at -= 1
        if self.at == -1:
            raise TransferError(self.error)
        return super().read(address, length)


class Bench:
    """A device of the gateware, and what its link, its memory and the monitor are."""

    def __init__(self) -> None:
        self.monitor = TlpMonitor(function_id=FUNCTION_ID, max_payload=256, max_read_request=512)
        self.judging = True
        self.memory = Moody()
        self.function = VerilatedFunction(CONFIG, self.memory, observe=self._judge)
        self.function._buffers = self.memory
        self.device = systola.Device(PcieTransport(self.function, timeout=PATIENCE))

    def _judge(self, packet: bytes, from_device: bool) -> None:
        if self.judging:
            words = struct.unpack(f">{len(packet) // 4}I", packet)
            (self.monitor.from_device if from_device else self.monitor.to_device)(words)


@pytest.fixture(autouse=True)
def _colliding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verilated, "pcie_library", lambda config, _progress: colliding_pcie_library(config))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.device.close()


def test_blocks_of_every_size_and_place_come_back(bench: Bench) -> None:
    transport, generator = bench.device.transport, np.random.default_rng(1)
    for region, size in {
        Region.PROGRAM: 4 * CONFIG.program_words,
        Region.ACTIVATION: 32768,
        Region.WEIGHT: CONFIG.weight_bytes,
    }.items():
        for length in (4, 60, 64, 260, 4100, size):
            start = 4 * int(generator.integers((size - length) // 4 + 1))
            data = generator.bytes(length)
            transport.write(region.base + start, data)
            assert transport.read(region.base + start, length) == data
    assert bench.monitor.most_outstanding >= 8
    bench.monitor.finish()


def test_a_model_bit_for_bit(bench: Bench) -> None:
    session, oracle = bench.device.load(DIGITS_MODEL, verify=True), Oracle(DIGITS_MODEL)
    sets = sets_for(session, 12, seed=12)
    check_outputs("digits, one by one", session, oracle, sets[:1])
    alone = session.counters
    check_outputs("digits, in flight", session, oracle, sets)
    assert session.counters == alone  # those of the last inference, which does not know of the others
    assert sum(layer.cycles for layer in session.layers) <= alone["cycles"]
    bench.monitor.finish()


@pytest.mark.full
def test_a_larger_model_bit_for_bit(bench: Bench) -> None:
    path = model_path("dscnn")
    session = bench.device.load(path)
    assert check_outputs("dscnn", session, Oracle(path), sets_for(session, 10, seed=13)) > 0
    bench.monitor.finish()


@pytest.mark.parametrize("name", ["digits", pytest.param("dscnn", marks=pytest.mark.full)])
def test_the_engine_hardly_rests_between_inferences(bench: Bench, name: str) -> None:
    """What an inference more takes, with others in flight, is hardly more than the engine's cycles."""
    session = bench.device.load(DIGITS_MODEL if name == "digits" else model_path(name))
    cycles = []
    # The first one also sets the ring up; the difference of the others leaves out doorbell and last record.
    for count in (4, 4, 16):
        before = bench.function.harness.cycles
        session.run(np.zeros((count, *session.inputs[0].shape), np.int8))
        cycles.append(bench.function.harness.cycles - before)
    each = (cycles[2] - cycles[1]) / 12
    idle = each - session.counters["cycles"]
    print(f"IDLE {name}: {idle:.0f} of {each:.0f} cycles an inference, {idle / each:.1%}")
    assert 0 <= idle <= session.counters["cycles"] / 20, idle  # of a small model; the rest of a large one is no longer


def test_64_kib_take_little_longer_than_their_beats(bench: Bench) -> None:
    """From the doorbell to the status record, at 80% of the interface's eight bytes a cycle and more."""
    data = np.random.default_rng(2).bytes(64 * 1024)
    transport, harness = bench.device.transport, bench.function.harness
    transport.write(Region.WEIGHT.base, data)  # sets the ring up
    before = harness.cycles
    transport.write(Region.WEIGHT.base, data)
    between = harness.cycles
    assert transport.read(Region.WEIGHT.base, len(data)) == data
    for name, cycles in (("to", between - before), ("from", harness.cycles - between)):
        print(f"RATE {name} the device: {cycles} cycles, {len(data) / cycles:.2f} bytes a cycle")
        assert len(data) / cycles >= 0.8 * 8


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DmaError.UNSUPPORTED_REQUEST, r"not mapped for it \(UNSUPPORTED_REQUEST\)"),
        (DmaError.COMPLETER_ABORT, r"refused the device an access to its memory \(COMPLETER_ABORT\)"),
        (DmaError.POISONED, r"marked as corrupt \(POISONED\)"),
        (DmaError.TIMEOUT, r"did not answer the device in time \(TIMEOUT\)"),
    ],
)
@pytest.mark.parametrize("at", [0, pytest.param(3, marks=pytest.mark.full)])
def test_a_failed_read_of_memory_has_its_sentence_and_the_device_lives_on(
    bench: Bench, error: DmaError, sentence: str, at: int
) -> None:
    session, oracle = bench.device.load(DIGITS_MODEL), Oracle(DIGITS_MODEL)
    sets = sets_for(session, 4, seed=14)
    bench.judging = False  # the answers are at fault on purpose
    bench.memory.at, bench.memory.error = at, error
    with pytest.raises(systola.LinkError, match=sentence):
        check_outputs("digits", session, oracle, sets)
    check_outputs("digits", session, oracle, sets)


def test_a_link_that_falls_in_mid_transfer(bench: Bench) -> None:
    session, oracle = bench.device.load(DIGITS_MODEL), Oracle(DIGITS_MODEL)
    sets = sets_for(session, 6, seed=15)
    fall = iter((False,) * 12 + (True,))
    read = bench.memory.read

    def falling(address: int, length: int, /) -> bytes:
        if next(fall, False):
            bench.function.set_link(False)
            bench.monitor.reset()
            bench.judging = False
        return read(address, length)

    bench.memory.read = falling  # type: ignore[method-assign]
    with pytest.raises(systola.LinkError, match="gone, or its link was reset"):
        check_outputs("digits", session, oracle, sets * 2)
    with pytest.raises(systola.LinkError, match="is still gone"):
        session.run(sets[0][0])
    bench.function.set_link(True)
    check_outputs("digits", session, oracle, sets)


def test_a_device_that_may_not_reach_memory_says_so(bench: Bench) -> None:
    session, oracle = bench.device.load(DIGITS_MODEL), Oracle(DIGITS_MODEL)
    bench.function.harness.set_bus_master(False)
    with pytest.raises(systola.LinkError, match=r"taken away .* access to its memory"):
        session.run(sets_for(session, 2, seed=16)[0][0])
    bench.function.harness.set_bus_master(True)
    check_outputs("digits", session, oracle, sets_for(session, 2, seed=16))


def test_where_there_is_no_memory_a_read_is_refused_and_a_write_forgotten(bench: Bench) -> None:
    offset = 6 << bench.function.window
    assert bench.function.read_word(offset) == 0xFFFF_FFFF
    bench.function.write_word(offset, 1)
    assert bench.device.registers()["identity"] != 0xFFFF_FFFF
    bench.monitor.finish()


def test_by_name() -> None:
    with systola.open("pcie:sim:tiny-8x4-dma") as device:
        assert str(device) == "pcie:sim:tiny-8x4-dma"
        assert device.has_cycles


@pytest.mark.full
def test_as_it_is_simulated_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verilated, "pcie_library", pcie_library)
    with systola.open("pcie:sim:tiny-8x4-dma") as device:
        session = device.load(DIGITS_MODEL)
        assert check_outputs("digits", session, Oracle(DIGITS_MODEL), sets_for(session, 5, seed=17)) > 0
