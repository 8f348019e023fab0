"""All operator families. A layer without a family is an error when this is imported, not when a model has one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from systola_firmware.ir.graph import Layer, kinds
from systola_firmware.operators.add import ADD
from systola_firmware.operators.convolution import CONVOLUTION, DEPTHWISE
from systola_firmware.operators.family import Family, Importer
from systola_firmware.operators.lookup import LOOKUP
from systola_firmware.operators.lstm import LSTM
from systola_firmware.operators.pad import PAD
from systola_firmware.operators.pool import POOL
from systola_firmware.operators.reshape import RESHAPE
from systola_firmware.operators.slice import SLICE
from systola_firmware.operators.softmax import SOFTMAX

__all__ = ["FAMILIES", "IMPORTERS", "by_layer", "family_of", "importers"]

FAMILIES = (ADD, CONVOLUTION, DEPTHWISE, LOOKUP, LSTM, PAD, POOL, RESHAPE, SLICE, SOFTMAX)


def by_layer(families: Iterable[Family], layers: Iterable[type[Layer]]) -> dict[type[Layer], Family]:
    """Each class of layers with its family. Raises ``TypeError`` for a class with none, or with two."""
    found: dict[type[Layer], Family] = {}
    for family in families:
        if family.layer in found:
            raise TypeError(f"two operator families have the layer {family.layer.__name__}")
        found[family.layer] = family
    for layer in layers:
        if layer not in found:
            raise TypeError(f"no operator family has the layer {layer.__name__}: add one to {__name__}")
    return found


def importers(families: Iterable[Family]) -> dict[str, Importer]:
    """The importer of each operator by its schema name. Raises ``TypeError`` for an operator of two families."""
    found: dict[str, Importer] = {}
    for family in families:
        for operator in family.operators:
            if operator.name in found:
                raise TypeError(f"two operator families have the operator {operator.name}")
            found[operator.name] = operator.importer
    return found


_BY_LAYER = by_layer(FAMILIES, kinds(Layer))

#: Importers of activation operators.
IMPORTERS: Mapping[str, Importer] = importers(FAMILIES)


def family_of(layer: Layer) -> Family:
    """The family of a layer. Raises ``TypeError`` for a class that was defined after this module was imported."""
    if type(layer) not in _BY_LAYER:
        raise TypeError(f"no operator family has the layer {type(layer).__name__}: add one to {__name__}")
    return _BY_LAYER[type(layer)]
