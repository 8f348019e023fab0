"""Names of devices, and the serial port's troubles, each in its sentence."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

import pytest
import serial
from support.links.terminal import Terminal, golden_device

import systola
from systola.transports.serial import SerialPipe, _opening_sentence
from systola_firmware.spec.presets import preset


@pytest.fixture
def board() -> Iterator[Terminal]:
    with Terminal(golden_device(preset("tiny-8x4"))) as terminal:
        yield terminal


def test_a_board_on_a_serial_port_says_what_it_is(board: Terminal) -> None:
    with systola.open(f"serial:{board.port}") as device:
        assert device.config == preset("tiny-8x4")
        assert str(device) == f"serial:{board.port}"
    with systola.open(f"serial:{board.port}@115200") as device:  # closed properly: it opens again
        assert device.config.name == "tiny-8x4"


def test_a_busy_port_is_named(board: Terminal) -> None:
    pipe = SerialPipe(board.port, 115200)
    with pytest.raises(systola.LinkError, match=f"{board.port} is in use by another program"):
        systola.open(f"serial:{board.port}")
    pipe.close()


def test_a_device_that_speaks_otherwise_is_told_with_the_baud_rate() -> None:
    with Terminal(lambda _data: b"login:\n") as terminal:
        with pytest.raises(systola.LinkError, match=r"not a Systola device's answers \(at 9600 baud"):
            systola.open(f"serial:{terminal.port}@9600")


def test_a_cable_that_is_pulled_is_named() -> None:
    master, slave = os.openpty()
    pipe = SerialPipe(os.ttyname(slave), 115200)
    os.close(slave)
    os.close(master)
    with pytest.raises(systola.LinkError, match="is gone: was the cable pulled"):
        pipe.write(b"x")
    with pytest.raises(systola.LinkError, match="is gone: was the cable pulled"):
        pipe.read(0.01)
    pipe.close()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("ulx3s-85f", "'ulx3s-85f' is not a device: say 'sim:PRESET', 'golden:PRESET', 'serial:PORT' or 'pcie:ADDRESS'"),
        ("usb:0", "'usb:0' is not a device"),
        ("golden:nonesuch", "unknown preset 'nonesuch': choose one of .*ulx3s-85f"),
        ("sim:nonesuch", "unknown preset 'nonesuch'"),
        ("pcie:golden:nonesuch", "unknown preset 'nonesuch'"),
        ("pcie:golden:icebreaker", "dma must be False in an engine that is compact"),
        ("serial:", "a serial device needs a port"),
        ("serial:/dev/nonesuch", "there is no serial port /dev/nonesuch"),
    ],
)
def test_a_name_that_is_no_device_is_explained(name: str, sentence: str) -> None:
    with pytest.raises(systola.SystolaError, match=sentence):
        systola.open(name)


def test_pcie_is_refused_where_stores_may_change_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(systola.DeviceError, match="PCIe is for x86-64 only: on aarch64"):
        systola.open("pcie:0000:03:00.0")


def test_default_preset_of_the_golden_device() -> None:
    assert systola.open("golden:").config == preset("ulx3s-85f")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (serial.SerialException(errno.EACCES, "denied"), "you may not open /dev/x: on Linux, add yourself to the group"),
        (serial.SerialException(errno.EBUSY, "busy"), "/dev/x is in use by another program"),
        (serial.SerialException("Could not exclusively lock port"), "/dev/x is in use by another program"),
        (ValueError("Invalid baud rate"), "/dev/x cannot run at 1 baud"),
        (OSError(errno.EIO, "broken"), "/dev/x could not be opened: .*broken"),
    ],
)
def test_each_reason_not_to_open_has_its_sentence(error: Exception, sentence: str) -> None:
    assert re.match(sentence, _opening_sentence("/dev/x", 1, error))
