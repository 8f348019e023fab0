"""An imported graph against TFLM: every tensor that both know, in both evaluations of the graph."""

from __future__ import annotations

import numpy as np

from support.models.inputs import input_sets
from support.models.random_models import RandomModel
from support.oracle.evaluation import evaluate, tensor_key
from support.oracle.tflm import Oracle
from systola_firmware.importer import import_tflite
from systola_firmware.ir.graph import Graph
from systola_firmware.numerics.arrays import Int8Array
from systola_sim.golden import graph_model


def assert_equal_to_tflm(graph: Graph, oracle: Oracle, inputs: list[Int8Array]) -> int:
    """Run TFLM, the naive evaluation and the packaged one; return the number of tensors compared."""
    oracle.run(*inputs)
    expected = oracle.computed()
    naive = evaluate(graph, *inputs)
    packaged = graph_model.evaluate(graph, inputs)
    compared = 0
    for tensor in [layer.output for layer in graph.layers]:
        if tensor.index < 0:
            continue
        if tensor_key(tensor) in naive:
            assert np.array_equal(naive[tensor_key(tensor)], expected[tensor.index]), tensor.name
        assert np.array_equal(packaged[tensor.name], expected[tensor.index]), tensor.name
        compared += 1
    return compared


def check_random(model: RandomModel, seed: int, sets: int = 9) -> None:
    """Import a random model and compare ``sets`` sets of inputs: seven corner sets, then random ones."""
    graph = import_tflite(model.data)
    oracle = Oracle(model.data)
    for inputs in input_sets(model.shapes, model.zero_points, sets, seed):
        assert assert_equal_to_tflm(graph, oracle, inputs) > 0, model.name
