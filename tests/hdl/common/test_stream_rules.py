# amaranth: UnusedElaboratable=no
"""The rules of streams find what they are for, in components with a fault planted; and every block's sources follow
the second rule in the netlist."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.sim import Simulator
from support.benches.stream_rules import StreamRule, StreamViolation, attach, late_offers, sources, waiting_paths

from systola_firmware.spec.presets import preset
from systola_hdl.common.credit_queue import CreditQueue
from systola_hdl.common.memory_ports import ActivationRead, ActivationWrite
from systola_hdl.common.skid_buffer import SkidBuffer
from systola_hdl.host.host_port import HostMemory
from systola_hdl.pcie.adapters.axi_stream import AxiStream
from systola_hdl.pcie.adapters.series7 import Series7Adapter
from systola_hdl.pcie.adapters.ultrascale import UltrascaleAdapter
from systola_hdl.pcie.standalone import StandaloneEndpoint
from systola_hdl.tops.pcie_simulation import PcieSimulationTop
from systola_hdl.tops.simulation import SimulationTop

CONFIG = preset("tiny-4x4")


class Register(Component):
    """One place for an item between two streams, with a fault of that name or none."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "forget": In(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        full, seen = Signal(), Signal()
        m.d.comb += [self.i.ready.eq(~full), self.o.valid.eq(full)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.eq(1), self.o.payload.eq(self.i.payload), seen.eq(0)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += full.eq(0)
        with m.If(full & ~self.o.ready):
            if self._fault == "payload":
                m.d.sync += self.o.payload.eq(self.o.payload + 1)
            if self._fault == "valid":
                m.d.sync += full.eq(0)
        if self._fault == "combinational":
            m.d.comb += self.o.valid.eq(full & self.o.ready)
        if self._fault == "register":
            with m.If(self.o.ready):
                m.d.sync += seen.eq(1)
            m.d.comb += self.o.valid.eq(full & seen)
        with m.If(self.forget):
            m.d.sync += full.eq(0)
        return m


async def ticks(ctx: Any, count: int) -> None:
    """What ``ctx.tick().repeat`` does, which complains when a simulation ends early."""
    for _ in range(count):
        await ctx.tick()


def simulate(dut: Any, benches: list[Callable[[Any], Any]], **options: Any) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    attach(simulator, dut, **options)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


def run(dut: Any, stall: float, **options: Any) -> None:
    """Twenty items, with pauses on both sides."""
    rng = random.Random(1)

    async def feed(ctx: Any) -> None:
        for item in range(20):
            ctx.set(dut.i.payload, 16 + item)
            ctx.set(dut.i.valid, 1)
            ready = 0
            while not ready:
                _, _, ready = await ctx.tick().sample(dut.i.ready)
            ctx.set(dut.i.valid, 0)
            while rng.random() < stall:
                await ctx.tick()

    async def take(ctx: Any) -> None:
        for item in range(20):
            for cycle in range(100):
                ctx.set(dut.o.ready, rng.random() >= stall)
                _, _, valid, ready, payload = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
                if valid and ready:
                    break
                assert cycle < 99
            assert payload == 16 + item

    simulate(dut, [feed, take], **options)


@pytest.mark.parametrize("stall", [0.0, 0.6])
@pytest.mark.parametrize("make", [Register, lambda: SkidBuffer(8)], ids=["register", "skid buffer"])
def test_good_ones_pass(make: Callable[[], Component], stall: float) -> None:
    run(make(), stall)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("payload", "o: the payload changed in cycle 4, before it was taken: payload 0x11 became payload 0x12"),
        ("valid", "o: valid fell in cycle 4, before it was taken: payload 0x11"),
    ],
)
def test_what_changes_while_it_waits_is_found(fault: str, message: str) -> None:
    with pytest.raises(StreamViolation, match=f"^{re.escape(message)}$"):
        run(Register(fault), 0.6)


def test_nothing_is_found_without_a_wait() -> None:
    """So every bench needs stalls."""

    async def feed(ctx: Any) -> None:
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        await ticks(ctx, 20)

    dut = Register("payload")
    simulate(dut, [feed])


def test_reset_and_what_is_like_it_may_take_an_offer_away() -> None:
    async def forget(ctx: Any) -> None:
        ctx.set(dut.i.valid, 1)
        await ticks(ctx, 3)
        ctx.set(dut.forget, 1)
        await ctx.tick()
        ctx.set(dut.forget, 0)
        await ticks(ctx, 3)

    dut = Register()
    simulate(dut, [forget], unless=dut.forget)
    with pytest.raises(StreamViolation, match="o: valid fell in cycle 4, before it was taken: payload 0x0"):
        simulate(dut, [forget])
    simulate(dut, [forget], exempt={"o": "shown here"})
    with pytest.raises(ValueError, match="no such sources: p; there are o"):
        simulate(dut, [], exempt={"p": "a typing error"})


def test_a_reset_simulator_begins_anew() -> None:
    async def offer(ctx: Any) -> None:
        ctx.set(dut.i.valid, 1)
        await ticks(ctx, 3)

    dut = Register()
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    attach(simulator, dut)
    simulator.add_testbench(offer)
    simulator.run()
    simulator.reset()
    simulator.run()


class Counter(Component):
    """Always valid, and it counts on whether taken or not."""

    def __init__(self) -> None:
        super().__init__({"o": Out(stream.Signature(8, always_valid=True))})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.sync += self.o.payload.eq(self.o.payload + 1)
        return m


def test_what_is_always_valid_keeps_its_payload() -> None:
    async def wait(ctx: Any) -> None:
        ctx.set(dut.o.ready, 1)
        await ticks(ctx, 5)
        ctx.set(dut.o.ready, 0)
        await ticks(ctx, 2)

    dut = Counter()
    with pytest.raises(StreamViolation, match=r"o: the payload changed in cycle 6, .*: payload 0x5 became payload 0x6"):
        simulate(dut, [wait])
    assert waiting_paths(dut) == {}  # its ``valid`` is a constant


def test_rule_of_any_simulator() -> None:
    rule = StreamRule("write", ["address", "data"])
    rule.check(1, 0, 1, 2)
    rule.check(1, 1, 1, 2)
    rule.check(0, 0, 5, 6)
    rule.check(1, 0, 3, 4)
    rule.reset()
    rule.check(0, 0, 3, 4)
    rule.check(1, 0, 3, 4)
    message = "write: the payload changed in cycle 7, before it was taken: address 0x3, data 0x4 became address 0x3, data 0x5"
    with pytest.raises(StreamViolation, match=message):
        rule.check(1, 0, 3, 5)


@pytest.mark.parametrize(("fault", "found"), [("", False), ("payload", False), ("register", False), ("combinational", True)])
def test_a_combinational_path_from_ready_to_valid_is_found(fault: str, found: bool) -> None:
    assert waiting_paths(Register(fault)) == {"o": found}


class Around(Component):
    """A register inside, behind a reset of its own; its ``ready`` comes from outside by way of a gate."""

    def __init__(self, fault: str) -> None:
        self._fault = fault
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)), "forget": In(1)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        inner = Register(self._fault)
        m.submodules.inner = ResetInserter(self.forget)(inner)
        connect(m, flipped(self.i), inner.i)
        m.d.comb += [
            self.o.valid.eq(inner.o.valid),
            self.o.payload.eq(inner.o.payload),
            inner.o.ready.eq(self.o.ready & ~self.forget),
        ]
        return m


@pytest.mark.parametrize(("fault", "found"), [("", False), ("combinational", True)])
def test_paths_inside_a_design_are_found(fault: str, found: bool) -> None:
    assert waiting_paths(Around(fault)) == {"o": found, "inner.o": found}


@pytest.mark.parametrize(
    ("make", "least"),
    [
        (lambda: PcieSimulationTop(preset("tiny-8x4-dma")), 100),
        (lambda: SimulationTop(preset("icebreaker")), 20),
        (lambda: StandaloneEndpoint(20), 20),
        (UltrascaleAdapter, 3),
        (Series7Adapter, 2),
    ],
    ids=["full engine, DMA, PCIe and serial link", "compact engine", "standalone endpoint", "UltraScale+", "7-series"],
)
def test_no_block_has_a_path_from_ready_to_valid(make: Callable[[], Component], least: int) -> None:
    """Of all sources in the design, of which there are ``least`` or more."""
    found = waiting_paths(make())
    assert [path for path, depends in found.items() if depends] == []
    assert len(found) >= least


async def offer_one(ctx: Any, dut: Any) -> None:
    ctx.set(dut.i.payload, 5)
    ctx.set(dut.i.valid, 1)
    await ctx.tick()
    ctx.set(dut.i.valid, 0)


@pytest.mark.parametrize(
    ("fault", "found"), [("", {}), ("payload", {}), ("combinational", {"o": (1, None)}), ("register", {"o": (1, None)})]
)
def test_valid_that_waits_for_ready_is_found(fault: str, found: dict[str, tuple[int, None]]) -> None:
    assert late_offers(lambda: Register(fault), offer_one, cycles=10) == found


def test_the_skid_buffer_does_not_wait() -> None:
    assert late_offers(lambda: SkidBuffer(8), offer_one, cycles=10) == {}


def test_an_offer_that_never_comes_shows_nothing() -> None:
    async def idle(ctx: Any, _dut: Any) -> None:
        await ctx.tick()

    with pytest.raises(AssertionError, match="offer nothing within 10 cycles: o"):
        late_offers(Register, idle, cycles=10)


def test_the_credit_queue_does_not_wait() -> None:
    async def use(ctx: Any, dut: Any) -> None:
        ctx.set(dut.take, 1)
        await offer_one(ctx, dut)
        ctx.set(dut.take, 0)

    assert late_offers(lambda: CreditQueue(8, 4), use, cycles=10) == {}


class Zoo(Component):
    """Ports of every kind; only its signature is used."""

    def __init__(self) -> None:
        kinds = data.StructLayout({"low": 4, "high": 4})
        super().__init__(
            {
                "plain": Out(stream.Signature(kinds)),
                "sink": In(stream.Signature(8)),
                "unstoppable": Out(stream.Signature(8, always_ready=True)),
                "endless": Out(stream.Signature(8, always_valid=True)),
                "both": Out(Signature({"there": Out(stream.Signature(3)), "back": In(stream.Signature(3))})).array(2),
                "seen_from_below": In(HostMemory()),
                "read": Out(ActivationRead(CONFIG)),
                "write": Out(ActivationWrite(CONFIG)),
                "served": In(ActivationRead(CONFIG)),
                "pins": Out(AxiStream(2)),
                "tx_data": Out(8).array(2),
                "tx_valid": Out(1),
                "tx_ready": In(1),
                "rx_data": In(8),
                "rx_valid": In(1),
                "rx_ready": Out(1),
                "pulse_valid": Out(1),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        return Module()


def test_every_source_of_a_signature_is_found() -> None:
    assert {source.path: (list(source.payload), source.can_wait) for source in sources(Zoo())} == {
        "tx": (["data[0]", "data[1]"], True),
        "plain": (["payload"], True),
        "unstoppable": (["payload"], False),
        "endless": (["payload"], True),
        "both[0].there": (["payload"], True),
        "both[1].there": (["payload"], True),
        "seen_from_below.read": (["payload"], True),
        "seen_from_below.write": (["payload"], True),
        "seen_from_below.write_data": (["payload"], True),
        "read": (["address"], True),
        "write": (["address", "data", "mask"], True),
        "pins.t": (["data", "keep", "last", "user"], True),
    }
