"""Named engines: one for each board that there is a bitstream for, and small ones for tests."""

from __future__ import annotations

from systola_firmware.spec.config import Config

#: iCE40UP5K: 5,280 logic cells, 8 multipliers of two 8 × 8 each, 128 KiB in four single-port memories, of which
#: two hold the activations and two the weights and the program.
_ICEBREAKER = Config(
    name="icebreaker",
    rows=4,
    columns=4,
    weight_rows_per_cycle=1,
    requantize_lanes=1,
    accumulator_depth=128,
    activation_bytes=64 * 1024,
    weight_bytes=56 * 1024,
    program_words=2048,
    trace_marks=16,
    lstm=False,
    compact=True,
    clock_hz=24_000_000,
)
#: Small and quick to elaborate; for tests.
_TINY_8X4 = Config(
    name="tiny-8x4",
    rows=8,
    columns=4,
    weight_rows_per_cycle=2,
    requantize_lanes=4,
    accumulator_depth=128,
    activation_bytes=32 * 1024,
    weight_bytes=128 * 1024,
    program_words=2048,
)

#: Named engines. Memory sizes of a board preset fit that FPGA's own block RAM.
PRESETS: dict[str, Config] = {
    config.name: config
    for config in (
        # LFE5U-85F: 208 blocks of 18 Kbit. As synthesised (docs/boards.md), 272 KiB of weights take 136, 64 KiB of
        # activations 32, accumulators 16, tables 8, the rest 9: 201. Of 156 multipliers, the array takes 128, the lanes
        # 24, the small LSTM cell 4.
        Config(
            name="ulx3s-85f",
            rows=16,
            columns=8,
            weight_rows_per_cycle=4,
            requantize_lanes=8,
            accumulator_depth=512,
            activation_bytes=64 * 1024,
            weight_bytes=272 * 1024,
            program_words=2048,
            trace_marks=64,
            lstm_serial=True,
            clock_hz=100_000_000,
        ),
        _ICEBREAKER,
        # LFE5U-25F: 24,288 LUT4, 28 multipliers, 56 blocks of 18 Kbit. Half of the array's rows multiply in logic, so
        # that 16 multipliers are left for the others, 6 for the lanes and 4 for the small LSTM cell. Keyword spotting
        # fits its memories: activations take 16 blocks, weights 18, accumulators 8, the rest 9.
        Config(
            name="ecp5-25f",
            rows=8,
            columns=4,
            weight_rows_per_cycle=2,
            requantize_lanes=2,
            accumulator_depth=512,
            activation_bytes=32 * 1024,
            weight_bytes=36 * 1024,
            program_words=1024,
            lstm_serial=True,
            fabric_rows=4,
            clock_hz=90_000_000,
        ),
        # LFE5UM5G-45F: 43,848 LUT4, 72 multipliers, 108 blocks of 18 Kbit. Two rows multiply in logic: 48 multipliers
        # for the others, 12 for the lanes, 4 for the small LSTM cell. A ResNet-8 for 32 by 32 pixels fits its memories:
        # activations take 32 blocks, weights 44, accumulators 16, the rest 11.
        Config(
            name="versa-ecp5-5g",
            rows=8,
            columns=8,
            weight_rows_per_cycle=2,
            requantize_lanes=4,
            accumulator_depth=512,
            activation_bytes=64 * 1024,
            weight_bytes=88 * 1024,
            program_words=1024,
            lstm_serial=True,
            fabric_rows=2,
            clock_hz=100_000_000,
        ),
        # GW2AR-18: 20,736 LUT4, 15,552 flip-flops, 48 multipliers of 18 x 18 or 96 of 9 x 9, 46 blocks of 18 Kbit. The
        # flip-flops are too few for an engine of pipelines (docs/architecture.md). Keyword spotting fits its memories:
        # activations take 16 blocks, weights and program 24, the rest 5; the accumulators go into LUT memory.
        _ICEBREAKER.replace(name="tang-nano-20k", activation_bytes=32 * 1024, weight_bytes=40 * 1024, clock_hz=63_000_000),
        # XC7A100T: 240 multipliers, 135 blocks of 36 Kbit. Four rows multiply in logic: 192 multipliers for the others,
        # 24 for the lanes, 4 for the small LSTM cell. By their bits, activations take 32 blocks, weights 64,
        # accumulators 16. The clock is that of a 64-bit PCIe interface to four lanes of the first generation.
        Config(
            name="litefury",
            rows=16,
            columns=16,
            weight_rows_per_cycle=4,
            requantize_lanes=8,
            accumulator_depth=512,
            activation_bytes=128 * 1024,
            weight_bytes=256 * 1024,
            program_words=2048,
            lstm_serial=True,
            fabric_rows=4,
            dma=True,
            clock_hz=125_000_000,
        ),
        # Small and quick to elaborate; for tests.
        Config(
            name="tiny-4x4",
            rows=4,
            columns=4,
            weight_rows_per_cycle=1,
            requantize_lanes=1,
            accumulator_depth=64,
            activation_bytes=32 * 1024,
            weight_bytes=64 * 1024,
            program_words=2048,
        ),
        _TINY_8X4,
        _TINY_8X4.replace(name="tiny-8x4-dma", weight_bytes=64 * 1024, dma=True),
        Config(
            name="wide-16x16",
            rows=16,
            columns=16,
            weight_rows_per_cycle=4,
            requantize_lanes=8,
            accumulator_depth=256,
            activation_bytes=64 * 1024,
            weight_bytes=256 * 1024,
            program_words=2048,
        ),
    )
}

#: The preset that commands use when none is named.
DEFAULT_PRESET = "ulx3s-85f"


def preset(name: str) -> Config:
    """Look up a preset by name. Raises ``ValueError`` with the names that exist."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(sorted(PRESETS))}") from None
