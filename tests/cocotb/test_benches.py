"""Builds each block with Verilator and runs its cocotb bench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from support.benches.cocotb_runner import run_bench
from support.benches.stream_block import FlatStream

from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import preset
from systola_hdl.full.matmul.accumulators import AccumulatorBuffer
from systola_hdl.full.matmul.streamer import Streamer
from systola_hdl.full.matmul.systolic_array import SystolicArray
from systola_hdl.full.memory.activation_memory import ActivationMemory
from systola_hdl.full.post.lstm.cell import LstmCell
from systola_hdl.full.post.lstm.cell_serial import SerialLstmCell
from systola_hdl.full.post.unit import PostUnit
from systola_hdl.host.bus import Bus
from systola_hdl.link.frames import Link
from systola_hdl.link.uart import DIVISOR_BITS, UartReceiver, UartTransmitter

HERE = Path(__file__).parent
SMALL = {"activation_bytes": 1024, "weight_bytes": 4096, "accumulator_depth": 16}


class LinkOnPins(Component):
    """The link behind the UART, its bus left open."""

    def __init__(self) -> None:
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "divisor": In(DIVISOR_BITS), "bus": Out(Bus())})

    def elaborate(self, _platform: object) -> Elaboratable:
        m = Module()
        m.submodules.link = link = Link()
        m.submodules.receiver = receiver = UartReceiver()
        m.submodules.transmitter = transmitter = UartTransmitter()
        connect(m, receiver.o, link.i)
        connect(m, link.o, transmitter.i)
        connect(m, link.bus, flipped(self.bus))
        m.d.comb += [receiver.rx.eq(self.rx), self.tx.eq(transmitter.tx)]
        m.d.comb += [receiver.divisor.eq(self.divisor), transmitter.divisor.eq(self.divisor)]
        return m


def post_unit(config: Config) -> Component:
    return PostUnit(
        config,
        accumulator_read_latency=AccumulatorBuffer.read_latency,
        activation_write_latency=ActivationMemory.write_latency,
    )


@dataclass(frozen=True)
class Bench:
    """A block, its bench's folder, and the least number of tests in it."""

    folder: str
    block: Callable[[Config], Any]
    config: Config
    tests: int

    @property
    def name(self) -> str:
        return f"{self.folder}-{self.config.name}"


BENCHES = (
    Bench("array", SystolicArray, preset("tiny-8x4").replace(**SMALL), 2),
    Bench("array", SystolicArray, preset("tiny-4x4").replace(**SMALL, hop_registers=2, name="4x4-two-registers-a-hop"), 2),
    Bench("streamer", Streamer, preset("tiny-8x4").replace(**SMALL), 5),
    Bench("post_processor", post_unit, preset("tiny-8x4").replace(**SMALL), 4),
    Bench("lstm_cell", lambda _config: FlatStream(LstmCell()), preset("tiny-4x4").replace(name="pipelined"), 4),
    Bench("lstm_cell", lambda _config: FlatStream(SerialLstmCell()), preset("tiny-4x4").replace(name="serial"), 4),
    Bench("uart_link", lambda _config: LinkOnPins(), preset("tiny-4x4"), 4),
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_bench(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    run_bench(
        bench.block(bench.config),
        bench.name,
        HERE / bench.folder / f"bench_{bench.folder}.py",
        tests=bench.tests,
        environment={"SYSTOLA_BENCH_CONFIG": json.dumps(dataclasses.asdict(bench.config))},
        monkeypatch=monkeypatch,
    )
