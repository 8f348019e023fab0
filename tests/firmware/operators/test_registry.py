"""Operator families: complete, or refused when they are defined."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from systola_firmware.ir.graph import Layer, kinds
from systola_firmware.ir.layers import Pool, PoolKind
from systola_firmware.ir.semantics import OWN, any_batch, no_border
from systola_firmware.operators.family import Family
from systola_firmware.operators.pool import POOL
from systola_firmware.operators.registry import FAMILIES, IMPORTERS, by_layer, family_of, importers


def test_a_layer_without_traits_is_refused_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'batch'"):

        class _NoBatch(Layer, border=no_border, memory=OWN, on_device=True):  # type: ignore[call-arg]  # the point of the test
            pass


def test_a_layer_without_a_family_is_refused() -> None:
    @dataclass(frozen=True)
    class Lonely(Layer, border=no_border, memory=OWN, batch=any_batch, on_device=True):
        pass

    with pytest.raises(TypeError, match="no operator family has the layer Lonely: add one to"):
        by_layer(FAMILIES, [Pool, Lonely])


def test_two_families_of_one_layer_are_refused() -> None:
    with pytest.raises(TypeError, match="two operator families have the layer Pool"):
        by_layer([*FAMILIES, POOL], [])


def test_a_family_lacks_nothing() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'lower'"):
        Family(Pool, (), runs="", types="int8")  # type: ignore[call-arg]  # the point of the test


def test_an_operator_belongs_to_one_family() -> None:
    assert set(importers(FAMILIES)) == set(IMPORTERS)
    with pytest.raises(TypeError, match="two operator families have the operator AVERAGE_POOL_2D"):
        importers([*FAMILIES, POOL])


def test_a_kind_of_a_kind_counts() -> None:
    @dataclass(frozen=True)
    class Inner(Pool, border=no_border, memory=OWN, batch=any_batch, on_device=True):
        pass

    assert Inner in kinds(Layer)
    layer = Inner("x", (), None, kind=PoolKind.MAXIMUM, window=(1, 1), stride=(1, 1))  # type: ignore[arg-type]  # unused
    with pytest.raises(TypeError, match="no operator family has the layer Inner"):
        family_of(layer)
