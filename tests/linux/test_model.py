"""A whole model in a Linux guest: the unchanged driver in the guest, a function of this process on the guest's bus."""

from __future__ import annotations

import io
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from support.models.files import DIGITS_MODEL
from support.oracle.agreement import sets_for
from support.oracle.tflm import Oracle
from support.pcie.linux_guest import build, missing, start
from support.pcie.qemu_proxy import Command, GuestMemory, ProxyServer

import systola
from systola.transports.pcie.simulated import GoldenFunction, SimulatedFunction
from systola.transports.pcie.verilated import VerilatedFunction
from systola_firmware.spec import program_file
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import preset

#: Inferences.
_INPUTS = 12


def _files(config: Config) -> dict[str, bytes]:
    """The compiled model, its inputs and the oracle's answers, for the guest."""
    with systola.open(f"golden:{config.name}") as device:
        session = device.load(DIGITS_MODEL)
    oracle = Oracle(DIGITS_MODEL)
    x = np.stack([item[0] for item in sets_for(session, _INPUTS, seed=11)])
    y = np.stack([oracle.run(item)[0] for item in x])
    data = io.BytesIO()
    np.savez(data, x=x, y=y, preset=config.name)
    return {"/guest/model.systola": program_file.dump(session.program), "/guest/data.npz": data.getvalue()}


def _run(function: SimulatedFunction, memory: GuestMemory, image: Path) -> tuple[str, ProxyServer]:
    """Boot a guest with ``function`` on its bus; its console, and the server after it has ended."""
    ours, theirs = socket.socketpair()
    server = ProxyServer(ours, function, memory)
    guest = start(image, "model", devices=[f"x-pci-proxy-dev,id=systola,fd={theirs.fileno()}"], inherited=[theirs.fileno()])
    theirs.close()
    console: list[str] = []
    reader = threading.Thread(target=lambda: console.append(guest.communicate()[0]))
    reader.start()
    watchdog = threading.Timer(500, guest.kill)
    watchdog.start()
    try:
        server.serve()
    finally:
        watchdog.cancel()
        guest.kill()
        reader.join()
        ours.close()
    return console[0], server


def _check(console: str, server: ProxyServer, memory: GuestMemory) -> None:
    assert "GUEST OK" in console, console
    assert "FAIL" not in console
    assert console.count("PASS ") == 6
    assert memory.moved > 20_000  # program and weights, twice, and one way back
    assert server.accesses[Command.BAR_READ] > 100


@pytest.mark.full
@pytest.mark.parametrize("kind", [GoldenFunction, VerilatedFunction], ids=["golden", "gateware"])
def test_the_driver_in_a_guest(kind: type[GoldenFunction] | type[VerilatedFunction], tmp_path: Path) -> None:
    """``gateware``: the unchanged driver in a kernel that is not ours; engine, DMA engine and TLP endpoint are in
    Verilator."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    config = preset("tiny-8x4-dma")
    build(tmp_path / "init.cpio", _files(config))
    memory = GuestMemory()
    function = kind(config, memory)
    console, server = _run(function, memory, tmp_path / "init.cpio")
    _check(console, server, memory)
    if isinstance(function, VerilatedFunction):
        assert "'cycles': 0," not in console
