"""The weight-memory image against the formulas of the instruction set, byte by byte."""

from __future__ import annotations

import numpy as np
import pytest

from systola_firmware.errors import DoesNotFit
from systola_firmware.lowering.weights import (
    WeightImage,
    channel_parameters,
    dense_tiles,
    diagonal_tiles,
    fold_zero_point,
    table_entries,
)
from systola_firmware.numerics.requantization import Requantization
from systola_firmware.spec.config import Config
from systola_firmware.spec.presets import preset

CONFIGS = [preset(name) for name in ("tiny-4x4", "tiny-8x4", "ulx3s-85f", "wide-16x16")]


def words(blob: bytes, config: Config) -> np.ndarray:
    """The blob's words, one a row, as unsigned bytes."""
    return np.frombuffer(blob, np.uint8).reshape(-1, config.weight_word_bytes)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_dense_tiles_follow_the_isa(config: Config) -> None:
    tiles = np.random.default_rng(0).integers(-128, 128, (3, 2, config.rows, config.columns)).astype(np.int8)
    image = words(dense_tiles(tiles), config).view(np.int8)
    rows_per_word = config.weight_rows_per_cycle
    for group, tile in np.ndindex(3, 2):
        start = (group * 2 + tile) * config.rows // rows_per_word
        for row, column in np.ndindex(config.rows, config.columns):
            j, i = divmod(row, rows_per_word)
            assert image[start + j, i * config.columns + column] == tiles[group, tile, row, column]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_diagonal_tiles_follow_the_isa(config: Config) -> None:
    taps = np.random.default_rng(1).integers(-128, 128, (2, 5, config.columns)).astype(np.int8)
    image = words(diagonal_tiles(taps, config), config).view(np.int8)
    for n in range(10):
        j, i = divmod(n, config.weight_rows_per_cycle)
        assert np.array_equal(image[j, i * config.columns : (i + 1) * config.columns], taps[n // 5, n % 5])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_parameters_follow_the_isa(config: Config) -> None:
    generator = np.random.default_rng(2)
    channels = 2 * config.columns + 1
    bias = generator.integers(-(1 << 31), 1 << 31, channels).astype(np.int32)
    multiplier = generator.integers(1 << 30, 1 << 31, channels).astype(np.int32)
    shift = generator.integers(-31, 7, channels).astype(np.int8)
    image = words(channel_parameters(bias, Requantization(multiplier, shift.astype(np.int32)), config), config)
    assert image.shape[0] == 3 * config.channel_parameter_words
    for channel in range(channels):
        group, c = divmod(channel, config.columns)
        region = image[group * config.channel_parameter_words : (group + 1) * config.channel_parameter_words].tobytes()
        integers = np.frombuffer(region[: 8 * config.columns], "<i4")
        assert integers[c] == bias[channel]
        assert integers[config.columns + c] == multiplier[channel]
        assert np.frombuffer(region[8 * config.columns :], np.int8)[c] == shift[channel]
    same = Requantization(np.full(channels, 1 << 30, np.int32), np.full(channels, -3, np.int32))
    biases = words(channel_parameters(bias, same, config), config)
    assert biases.shape[0] == 3 * config.bias_words
    assert np.array_equal(np.frombuffer(biases.tobytes(), "<i4")[:channels], bias)


def test_the_zero_point_is_folded_modulo_two_to_the_32() -> None:
    bias = np.array([5, (1 << 31) - 1, -(1 << 31)], np.int32)
    folded = fold_zero_point(bias, np.array([10, -1, 1], np.int64), 3)
    assert folded.tolist() == [5 - 30, -(1 << 31) + 2, (1 << 31) - 3]


def test_tables_are_little_endian_in_unsigned_order() -> None:
    table = np.arange(256, dtype=np.int32) - 128
    blob = table_entries(table, -table)
    assert len(blob) == 2048
    assert int.from_bytes(blob[4 * 0x80 : 4 * 0x80 + 4], "little", signed=True) == 0
    assert int.from_bytes(blob[1024:1028], "little", signed=True) == 128


def test_equal_blobs_are_shared_and_sizes_checked() -> None:
    config = preset("tiny-4x4")
    image = WeightImage(config)
    first = image.add(bytes(range(4)) * 2)
    second = image.add(bytes(8))
    assert image.add(bytes(range(4)) * 2) == first
    assert (first, second, image.words) == (0, 2, 4)
    assert image.finish() == bytes(range(4)) * 2 + bytes(8)
    with pytest.raises(ValueError, match="5 bytes is no whole number of 4-byte words"):
        image.add(bytes(5))
    image.add(bytes(config.weight_bytes))
    with pytest.raises(DoesNotFit, match=f"needs {config.weight_bytes + 16} bytes of weight memory"):
        image.finish()
