"""Loading and running a program on the golden device, and what the driver says when something is wrong."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.programs.small_program import CHANNELS, small_program

import systola
from systola.transports.base import ProgramStopped
from systola.transports.golden import GoldenTransport
from systola_firmware.spec.isa import VERSION
from systola_firmware.spec.memory_map import MARK_WORDS, Region, register_address
from systola_firmware.spec.presets import preset

CONFIG = preset("tiny-4x4")
VALUES = np.array([[-128, -127, -1, 0, 1, 100, 126, 127]], dtype=np.int8)


def saturated(values: np.ndarray, added: int) -> np.ndarray:
    return np.clip(values.astype(int) + added, -128, 127).astype(np.int8)


@pytest.fixture
def device() -> systola.Device:
    return systola.open("golden:tiny-4x4")


def test_one_input_answers_in_its_own_shape(device: systola.Device) -> None:
    answer = device.load(small_program(CONFIG), verify=True).run(VALUES)
    assert answer.shape == (1, CHANNELS)
    assert answer.dtype == np.int8
    np.testing.assert_array_equal(answer, saturated(saturated(VALUES, 1), 2))


def test_stacked_inputs_answer_in_kind_and_a_mapping_with_a_mapping(device: systola.Device) -> None:
    session = device.load(small_program(CONFIG))
    stacked = np.random.default_rng(1).integers(-128, 128, (150, 1, CHANNELS), dtype=np.int8)
    answer = session.run({"x": stacked})
    assert set(answer) == {"second"}
    np.testing.assert_array_equal(answer["second"], saturated(saturated(stacked, 1), 2))
    np.testing.assert_array_equal(session.run(stacked[:1]), answer["second"][:1])


def test_one_by_one_and_at_once_agree(device: systola.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    session = device.load(small_program(CONFIG))
    stacked = np.random.default_rng(2).integers(-128, 128, (5, 1, CHANNELS), dtype=np.int8)
    at_once = session.run(stacked)
    calls = []

    def stopped(*arguments: object) -> None:
        calls.append(arguments)
        raise ProgramStopped("one of them")

    monkeypatch.setattr(GoldenTransport, "run_batch", stopped)
    np.testing.assert_array_equal(session.run(stacked), at_once)
    assert len(calls) == 1


def test_real_values_are_quantized_by_the_models_scales(device: systola.Device) -> None:
    real = np.array([[-100.0, -0.25, 0.0, 0.25, 0.74, 0.76, 1.0, 100.0]])  # scale 0.5, zero point -3, ties away from zero
    quantized = np.array([[-128, -4, -3, -2, -2, -1, -1, 127]], dtype=np.int8)
    answer = device.load(small_program(CONFIG)).run(real, float_io=True)
    assert answer.dtype == np.float32
    expected = saturated(saturated(quantized, 1), 2)
    np.testing.assert_array_equal(answer, 0.5 * (expected.astype(np.float32) + 3))


def test_intermediates_are_read_by_cutting_the_program_short_and_it_is_whole_again(device: systola.Device) -> None:
    session = device.load(small_program(CONFIG))
    whole = device.transport.read(Region.PROGRAM.base, 4 * len(session.program.words))
    tensors = session.intermediates(VALUES)
    assert list(tensors) == ["first", "second"]
    np.testing.assert_array_equal(tensors["first"], saturated(VALUES, 1))
    np.testing.assert_array_equal(tensors["second"], saturated(saturated(VALUES, 1), 2))
    np.testing.assert_array_equal(session.run_until(0, VALUES), tensors["first"])
    assert device.transport.read(Region.PROGRAM.base, len(whole)) == whole
    with pytest.raises(systola.ProgramError, match="no layer 'third': it has first, second"):
        session.run_until("third", VALUES)


def test_a_stop_with_an_error_names_the_layer_and_the_device_lives_on(device: systola.Device) -> None:
    session = device.load(small_program(CONFIG, second_source=CONFIG.activation_bytes))
    for values in (VALUES, np.stack([VALUES, VALUES])):
        with pytest.raises(
            systola.DeviceError, match=r"golden:tiny-4x4 stopped in layer second: an address outside the activation memory"
        ):
            session.run(values)
    assert device.load(small_program(CONFIG)).run(VALUES).shape == (1, CHANNELS)


def test_a_program_for_another_configuration_names_every_field_that_differs(device: systola.Device) -> None:
    program = small_program(preset("tiny-8x4"))
    with pytest.raises(systola.ProgramError) as caught:
        device.load(program)
    own, other = CONFIG.program_fields(), program.configuration
    for field, value in own.items():
        assert (f"{field} is {other[field]} in the program and {value} on the device" in str(caught.value)) == (
            value != other[field]
        )
    newer = dataclasses.replace(small_program(CONFIG), configuration=own | {"isa_version": VERSION + 1})
    with pytest.raises(systola.ProgramError, match=f"isa_version is {VERSION + 1} in the program and {VERSION} on the device"):
        device.load(newer)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (np.zeros((1, 7), np.int8), r"'x' has the shape \[1, 8\], or \[N, 1, 8\] for several inferences, but \[1, 7\] was given"),
        (np.zeros((8,), np.int8), r"but \[8\] was given"),
        (np.zeros((2, 2, 1, 8), np.int8), r"but \[2, 2, 1, 8\] was given"),
        (np.zeros((1, 8), np.float32), "is int8, but float32 was given"),
        (np.zeros((1, 8), np.uint8), "is int8, but uint8 was given"),
        (np.zeros((0, 1, 8), np.int8), "nothing to run"),
        ({"y": np.zeros((1, 8), np.int8)}, "inputs are x, but y was given"),
        ({}, "inputs are x, but none was given"),
    ],
)
def test_a_wrong_input_is_refused_in_one_sentence(device: systola.Device, x: object, sentence: str) -> None:
    with pytest.raises(systola.InputError, match=sentence):
        device.load(small_program(CONFIG)).run(x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "sentence"), [(np.full((1, 8), np.nan), "NaN"), (np.zeros((1, 8), dtype=complex), "real numbers, but complex128")]
)
def test_a_wrong_real_input_is_refused(device: systola.Device, x: np.ndarray, sentence: str) -> None:
    with pytest.raises(systola.InputError, match=sentence):
        device.load(small_program(CONFIG)).run(x, float_io=True)


class Altered(GoldenTransport):
    """A golden device in which registers, or a memory, read other values than they hold."""

    has_cycles = True

    def __init__(self, **registers: int) -> None:
        super().__init__(CONFIG)
        self.altered = {register_address(name): value for name, value in registers.items()}

    def read(self, address: int, length: int) -> bytes:
        data = bytearray(super().read(address, length))
        for start, value in self.altered.items():
            if address <= start < address + length:
                data[start - address : start - address + 4] = value.to_bytes(4, "little")
        return bytes(data)


@pytest.mark.parametrize(
    ("registers", "sentence"),
    [
        ({"identity": 0x12345678}, "is not a Systola device: its identity register reads 0x12345678"),
        ({"gateware_version": 99}, "has gateware version 99"),
        ({"config_isa_version": 99}, "has instruction set 99"),
        ({"config_rows": 5}, "rows must be a power of two from 4 to 64, not 5"),
    ],
)
def test_a_foreign_device_is_refused(registers: dict[str, int], sentence: str) -> None:
    with pytest.raises(systola.DeviceError, match=sentence):
        systola.Device(Altered(**registers))


def test_verification_finds_a_memory_that_does_not_hold() -> None:
    transport = Altered()
    device = systola.Device(transport)
    transport.altered[Region.WEIGHT.base] = 0
    device.load(small_program(CONFIG))
    with pytest.raises(systola.DeviceError, match="does not hold what was written to it at 0x30000000"):
        device.load(small_program(CONFIG), verify=True)


class Endless(Altered):
    """A device whose program never ends, and whose clock runs fast."""

    aborted = False

    def read(self, address: int, length: int) -> bytes:
        cycles = register_address("counter_cycles")
        self.altered[cycles] = min(self.altered[cycles] + 10_000_000, 0xFFFF_FFFF)
        return super().read(address, length)

    def write(self, address: int, data: bytes) -> None:
        if address == register_address("control") and data == b"\2\0\0\0":
            self.aborted = True
        super().write(address, data)


def test_an_endless_program_is_aborted() -> None:
    transport = Endless(counter_cycles=0)
    device = systola.Device(transport)
    session = device.load(small_program(CONFIG))
    transport.altered[register_address("status")] = 1
    with pytest.raises(systola.DeviceError, match="was stopped: the program was still running after"):
        session.run(VALUES)
    assert transport.aborted


def test_layer_costs_are_differences_between_marks() -> None:
    transport = Altered(counter_cycles=77)
    device = systola.Device(transport)
    session = device.load(small_program(CONFIG))
    second_mark = Region.TRACE.base + 4 * len(MARK_WORDS)
    transport.altered |= {Region.TRACE.base + 4: 30, second_mark + 4: 70, Region.TRACE.base + 8: 5, second_mark + 8: 6}
    session.run(VALUES)
    assert session.counters["cycles"] == 77
    assert [(layer.name, layer.cycles, layer.counters["array_busy"]) for layer in session.layers] == [
        ("first", 30, 5),
        ("second", 40, 1),
    ]


def test_constants_are_written_at_their_places(device: systola.Device) -> None:
    program = dataclasses.replace(small_program(CONFIG), constants=((64, b"\1\2\3\4\5"), (128, b"\6\7\x08\x09")))
    device.load(program)
    for address, data in program.constants:
        held = device.transport.read(Region.ACTIVATION.base + address, -(-len(data) // 4) * 4)
        assert held == data + bytes(len(held) - len(data))


def test_marks_beyond_the_trace_are_not_read() -> None:
    transport = Altered(marks=CONFIG.trace_marks + 3)
    session = systola.Device(transport).load(small_program(CONFIG))
    session.run(VALUES)  # reading more would be refused: no memory there
    assert len(session._marks) == CONFIG.trace_marks


def test_a_device_that_does_not_start_is_told() -> None:
    session = systola.Device(Altered(status=0)).load(small_program(CONFIG))
    with pytest.raises(systola.DeviceError, match="did not start the program"):
        session.run(VALUES)
