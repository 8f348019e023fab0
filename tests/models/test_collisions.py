"""No answer depends on a word of block RAM that is read in the cycle in which it is written: synthesis does not promise
what it is.

Every whole board here has memories that then deliver the complement of what Amaranth's simulation, the other tests and
the Verilated boards would (:mod:`support.benches.collisions`); so has the board on PCIe, in ``test_pcie_gateware.py``.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from amaranth.hdl import Module
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out
from support.benches.collisions import colliding_library, colliding_verilog
from support.models.files import DIGITS_LSTM, DIGITS_MODEL
from support.models.random_models import graph_model, random_model
from support.oracle.agreement import check_intermediates, check_model, check_outputs, sets_for
from support.oracle.tflm import Oracle

import systola
from systola.transports.link import LinkTransport
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import preset
from systola_sim.verilated.board import VerilatedBoard


@contextmanager
def colliding(config: Config) -> Iterator[systola.Device]:
    board = VerilatedBoard(config, library=colliding_library(config))
    with systola.Device(LinkTransport(board, "colliding", timeout=120.0, attempts=1)) as device:
        yield device


class OneMemory(Component):
    """Reads and writes one word in the same cycle, each of its bytes by an enable of its own."""

    address: In(3)
    data: In(16)
    enable: In(2)
    clocked: Out(16)
    at_once: Out(16)

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = Memory(shape=16, depth=8, init=[])
        write, clocked, at_once = memory.write_port(granularity=8), memory.read_port(), memory.read_port(domain="comb")
        m.d.comb += [port.addr.eq(self.address) for port in (write, clocked, at_once)]
        m.d.comb += [write.data.eq(self.data), write.en.eq(self.enable), clocked.en.eq(1)]
        m.d.comb += [self.clocked.eq(clocked.data), self.at_once.eq(at_once.data)]
        return m


def test_the_memories_of_these_boards_collide() -> None:
    """Byte by byte, at the clocked port alone."""
    text, ports = colliding_verilog(OneMemory())
    assert ports == 1
    assert len(re.findall(r"<= ~memory\[\w+\]\[\d+:\d+\];", text)) == 2


@pytest.mark.parametrize("name", ["icebreaker", pytest.param("tiny-8x4", marks=pytest.mark.full)])
@pytest.mark.timeout(900)
def test_models_and_random_graphs(name: str) -> None:
    config = preset(name)
    with colliding(config) as device:
        session = device.load(DIGITS_MODEL)
        oracle = Oracle(DIGITS_MODEL)
        assert check_outputs("digits", session, oracle, sets_for(session, 5, seed=1)) > 0
        assert check_intermediates("digits", session, oracle, sets_for(session, 1, seed=2)) > 0
        counters = []
        for _ in range(16):  # as they are counted in a memory, and read while it is written
            session.run(*sets_for(session, 1, seed=1)[0])
            counters.append(session.counters)
        assert all(found == counters[0] for found in counters)
        for seed in range(81_000, 81_012):
            model = random_model(seed)
            assert check_model(model.name, device, model.data, inputs=2, seed=seed) > 0
        for seed in range(82_000, 82_003):
            model = graph_model(seed)
            assert check_model(model.name, device, model.data, inputs=2, seed=seed) > 0
        if config.lstm:
            session = device.load(DIGITS_LSTM)
            assert check_outputs("digits_lstm", session, Oracle(DIGITS_LSTM), sets_for(session, 2, seed=3)) > 0
