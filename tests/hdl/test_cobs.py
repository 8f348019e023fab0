"""COBS encoder and decoder against the ``cobs`` package, with stalls on both sides."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator, SimulatorContext
from cobs import cobs

from systola_hdl.cobs import CobsDecoder, CobsEncoder


def stream(dut: CobsEncoder | CobsDecoder, items: list[object], seed: int, quiet_limit: int = 600) -> list[object]:
    """Push items (of the input's payload) through and return what comes out until it is quiet."""
    rng = random.Random(seed)
    received: list[object] = []
    sent = False

    async def send(ctx: SimulatorContext) -> None:
        nonlocal sent
        for item in items:
            if rng.random() < 0.2:
                await ctx.tick().repeat(rng.randrange(1, 4))
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, 1)
            await ctx.tick().until(dut.i.ready)
            ctx.set(dut.i.valid, 0)
        sent = True

    async def receive(ctx: SimulatorContext) -> None:
        quiet, held = 0, None
        while not sent or quiet < quiet_limit:
            ready = rng.random() < 0.8
            ctx.set(dut.o.ready, ready)
            _, _, valid, payload = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            if held is not None and isinstance(dut, CobsEncoder):
                assert valid, "an offer was withdrawn"
                assert payload == held, "an offer was changed"
            held = payload if valid and not ready else None
            quiet = quiet + 1 if sent and not valid else 0
            if valid and ready:
                received.append(payload)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(receive)
    simulator.run()
    return received


def encode(frames: list[bytes], seed: int) -> bytes:
    items: list[object] = []
    for frame in frames:
        items += [{"byte": byte, "end": 0, "error": 0} for byte in frame] + [{"byte": 0, "end": 1, "error": 0}]
    return bytes(stream(CobsEncoder(), items, seed))  # type: ignore[arg-type]  # payloads are integers here


def decode(line: bytes, seed: int) -> list[bytes | None]:
    """Frames, None for a broken code."""
    frames: list[bytes | None] = []
    current = bytearray()
    for payload in stream(CobsDecoder(), list(line), seed, quiet_limit=5):
        if payload.end:
            frames.append(None if payload.error else bytes(current))
            current.clear()
        else:
            current.append(payload.byte)
    assert not current
    return frames


def random_frames(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    kinds = ([0], [0, 0, 0, 1], list(range(256)), list(range(1, 256)))
    lengths = (0, 1, 2, 7, 60, 253, 254, 255, 300)
    return [bytes(rng.choices(rng.choice(kinds), k=rng.choice(lengths))) for _ in range(8)]


EDGES = [
    b"",
    b"\0",
    b"\0\0",
    b"a",
    b"\1" * 253,
    b"\1" * 254,
    b"\1" * 255,
    b"\1" * 254 + b"\0",
    b"\0" + b"\1" * 254,
    b"\1" * 253 + b"\0",
]
CASES = [EDGES, *(random_frames(seed) for seed in range(3))]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_encoder(case: int) -> None:
    assert encode(CASES[case], case) == b"".join(cobs.encode(frame) + b"\0" for frame in CASES[case])


@pytest.mark.parametrize("case", range(len(CASES)))
def test_decoder(case: int) -> None:
    assert decode(b"".join(cobs.encode(frame) + b"\0" for frame in CASES[case]), case) == CASES[case]


def test_decoder_recovers_from_broken_codes() -> None:
    rng = random.Random(5)
    line = bytes(rng.choice([0, 1, 2, 3, rng.randrange(256)]) for _ in range(1500)) + b"\0"
    expected: list[bytes | None] = []
    for piece in line.split(b"\0")[:-1]:
        try:
            expected.append(cobs.decode(piece))
        except cobs.DecodeError:
            expected.append(None)
    assert None in expected
    assert decode(line, 5) == expected


def test_encoder_takes_a_byte_a_cycle() -> None:
    frame = bytes(range(250))
    dut = CobsEncoder()
    cycles = 0

    async def testbench(ctx: SimulatorContext) -> None:
        nonlocal cycles
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i.valid, 1)
        for _ in range(4):
            for item in [*({"byte": byte, "end": 0, "error": 0} for byte in frame), {"byte": 0, "end": 1, "error": 0}]:
                ctx.set(dut.i.payload, item)
                taken = False
                while not taken:
                    _, _, taken = await ctx.tick().sample(dut.i.ready)
                    cycles += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert cycles == 4 * (len(frame) + 2)
