# amaranth: UnusedElaboratable=no
"""Multipliers, with the bodies of every FPGA family: corner and random operands, and the stationary operands' loads."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Shape
from amaranth.lib.wiring import Component, In
from support.benches.family_bench import PortValues, port_shapes, run_every_cycle

from systola_hdl.cells.families import Family, platform_of
from systola_hdl.cells.multiplier import Multiplier
from systola_hdl.cells.multiplier_pair import MultiplierPair
from systola_hdl.cells.product import Product


def build() -> dict[str, Component]:
    return {
        "square": Multiplier(),
        "odd": Multiplier(11, 12),
        "narrow": Multiplier(2, 8),
        "wide": Multiplier(19, 8),  # too wide for all cells but a DSP48E1
        "widest": Multiplier(26, 8),  # for that as well
        "fabric": Multiplier(fabric=True),
        "fabric_odd": Multiplier(6, 5, fabric=True),
        "pair": MultiplierPair(),
        "product": Product(18, 18),
        "product_small": Product(9, 5),
    }


#: Moving operand, stationary operand, load (none: both operands move) and product.
PRODUCTS = [
    *(
        (f"{name}.a", f"{name}.b", f"{name}.load", f"{name}.p")
        for name in ("square", "odd", "narrow", "wide", "widest", "fabric", "fabric_odd")
    ),
    *((f"pair.a{index}", f"pair.b{index}", "pair.load", f"pair.p{index}") for index in (0, 1)),
    *((f"{name}.a", f"{name}.b", None, f"{name}.p") for name in ("product", "product_small")),
]


def corners(shape: Shape) -> list[int]:
    low, high = -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return sorted({low, low + 1, -1, 0, 1, high - 1, high})


def random_value(rng: random.Random, shape: Shape) -> int:
    if not shape.signed:
        return int(rng.random() < 0.4)
    return rng.choice((rng.choice(corners(shape)), rng.randint(-(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1)))


def make_stimuli(shapes: dict[str, Shape]) -> list[PortValues]:
    """All pairs of corners, then random operands, loaded or not; what is not loaded varies as well."""
    rng = random.Random(4)
    ordered = {name: corners(shape) for name, shape in shapes.items() if shape.signed}
    stimuli: list[PortValues] = []
    for left, right in itertools.product(range(7), repeat=2):
        values = dict.fromkeys(shapes, 1)
        for name, choices in ordered.items():
            values[name] = choices[(left if ".a" in name else right) % len(choices)]
        stimuli.append(values)
    return stimuli + [{name: random_value(rng, shape) for name, shape in shapes.items()} for _ in range(1500)]


@pytest.mark.parametrize("family", list(Family))
def test_products(family: Family) -> None:
    components = build()
    stimuli = make_stimuli(port_shapes(components, In))
    found = run_every_cycle(components, family, stimuli)
    for a, b, load, p in PRODUCTS:
        latency = type(components[p.split(".")[0]]).latency
        kept, expected = 0, []
        for values in stimuli:
            kept = values[b] if load is None or values[load] else kept
            expected.append(values[a] * kept)
        assert [outputs[p] for outputs in found[latency:]] == expected[:-latency], p


def cells_of(component: Component, family: Family) -> list[str]:
    text = rtlil.convert(component, emit_src=False, platform=platform_of(family))
    return [name.removeprefix("\\") for name in re.findall(r"^ *cell (\S+)", text, re.MULTILINE)]


@pytest.mark.parametrize(
    ("component", "family", "cell"),
    [
        (Multiplier(), Family.ECP5, "MULT18X18D"),
        (Multiplier(), Family.GOWIN, "MULT9X9"),
        (Multiplier(9, 10), Family.GOWIN, "MULT18X18"),
        (MultiplierPair(), Family.ICE40, "SB_MAC16"),
        (Product(18, 18), Family.ECP5, "MULT18X18D"),
        (Product(18, 18), Family.GOWIN, "MULT18X18"),
        (Product(9, 9), Family.GOWIN, "MULT9X9"),
        (Multiplier(), Family.XILINX, "DSP48E1"),
        (Multiplier(25, 18), Family.XILINX, "DSP48E1"),
        (Product(18, 18), Family.XILINX, "DSP48E1"),
    ],
)
def test_one_cell(component: Component, family: Family, cell: str) -> None:
    cells = cells_of(component, family)
    stationary_outside = family is Family.GOWIN and isinstance(component, Multiplier)
    assert [name for name in cells if not name.startswith("$")] == [cell]
    assert ("$dff" in cells) == stationary_outside


@pytest.mark.parametrize("family", list(Family))
def test_fabric_has_no_multiplication(family: Family) -> None:
    cells = cells_of(Multiplier(fabric=True), family)
    assert ("CCU2C" if family is Family.ECP5 else "$add") in cells
    assert not {"$mul", "MULT18X18D", "MULT9X9", "MULT18X18", "SB_MAC16", "DSP48E1"} & set(cells)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Multiplier(8, 1), "b_bits must be at least 2, not 1"),
        (lambda: Product(1, 8), "a_bits must be from 2 to 18, not 1"),
        (lambda: Product(8, 19), "b_bits must be from 2 to 18, not 19"),
    ],
)
def test_bad_width(make: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
