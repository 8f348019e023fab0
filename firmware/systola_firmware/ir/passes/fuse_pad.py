"""PAD before a convolution becomes the convolution's own border."""

from __future__ import annotations

import dataclasses

from systola_firmware.ir.graph import Graph, Layer
from systola_firmware.ir.layers import Convolution, DepthwiseConvolution, Pad
from systola_firmware.ir.passes.rewriting import producers, with_layers
from systola_firmware.ir.tensor import Padding


def fuse_pad(graph: Graph) -> Graph:
    """Let convolutions read the input of a Pad, where the Pad adds just what a convolution's border holds.

    The conditions are: the Pad's value is the zero point, which is the value of a border; it adds no channels; its
    input and output have the same zero point. The Pad itself stays if other layers read it; otherwise it is dead and is
    removed later. A convolution with a border of its own gets the sum of both.
    """
    makers = producers(graph)
    layers: list[Layer] = []
    for layer in graph.layers:
        fused = layer
        while isinstance(fused, Convolution | DepthwiseConvolution):
            pad = makers.get(fused.inputs[0].name)
            if not isinstance(pad, Pad) or not _is_border(pad) or (isinstance(fused, Convolution) and fused.fully_connected):
                break
            fused = dataclasses.replace(
                fused, inputs=pad.inputs, operators=(*pad.operators, *fused.operators), padding=_sum(pad.padding, fused.padding)
            )
        layers.append(fused)
    return with_layers(graph, layers)


def _is_border(pad: Pad) -> bool:
    source = pad.inputs[0]
    return pad.channels == (0, 0) and pad.value == pad.output.zero_point == source.zero_point and source.constant is None


def _sum(first: Padding, second: Padding) -> Padding:
    return Padding(first.top + second.top, first.bottom + second.bottom, first.left + second.left, first.right + second.right)
