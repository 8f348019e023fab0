"""Signatures of the ports of an engine's memories. Directions are those of the initiator (the client).

All are in the ``sync`` domain. A transfer of a request happens in a cycle with ``valid & ready``; ``valid`` never waits
for ``ready``.
"""

from __future__ import annotations

from amaranth.lib import data
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from systola_firmware.spec.config import DMA_BEAT_BYTES, Config

__all__ = [
    "ActivationRead",
    "ActivationWrite",
    "BeatRead",
    "BeatWrite",
    "WeightRead",
]

#: Width of an activation address inside the engine: one bit more than any address, two's complement, so that a stray
#: address of an affine loop is seen as outside rather than wrapped.
ADDRESS_BITS = 22
#: Width of a weight word address inside the engine (one bit more than the instruction's field).
WEIGHT_ADDRESS_BITS = 25


class ActivationRead(Signature):
    """Client of the activation memory's read port.

    ``address`` (bytes, already checked to lie inside) is taken when ``valid & ready``; ``data`` (``rows`` bytes, the
    byte at ``address`` first, wrapping at the end of the memory) comes with ``data_valid`` exactly
    ``ActivationMemory.read_latency`` (streamer) or ``post_latency`` (post-processor) cycles later, in order, and cannot
    be refused.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(config.activation_bytes)),
                "data": In(data.ArrayLayout(8, config.rows)),
                "data_valid": In(1),
            }
        )


class ActivationWrite(Signature):
    """Client of the activation memory's write port: ``lanes`` bytes from any byte address, byte ``i`` written if
    ``mask[i]``.

    A read accepted at least ``ActivationMemory.write_latency`` cycles after the write's ``valid & ready`` sees the new
    data.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(config.activation_bytes)),
                "data": Out(data.ArrayLayout(8, config.requantize_lanes)),
                "mask": Out(config.requantize_lanes),
            }
        )


class WeightRead(Signature):
    """Client of the weight memory's read port: a word ``WeightMemory.read_latency`` (loader) or ``post_latency``
    (post-processor) cycles after ``valid & ready``, in order.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(config.weight_words)),
                "data": In(data.ArrayLayout(8, config.weight_word_bytes)),
                "data_valid": In(1),
            }
        )


class BeatWrite(Signature):
    """Client of a memory's second host port: up to 8 bytes to byte ``address`` of a memory of ``size`` bytes.

    Byte ``i`` is written to ``address + i`` if ``mask[i]``; the client sets no ``mask[i]`` for a byte behind the end.
    The activation memory takes any address and mask; elsewhere the address is a multiple of 8, and the mask has the
    same bit for all bytes of a word of 32 bits.
    """

    def __init__(self, size: int) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(size)),
                "data": Out(8 * DMA_BEAT_BYTES),
                "mask": Out(DMA_BEAT_BYTES),
            }
        )


class BeatRead(Signature):
    """Client of a memory's second host port: 8 bytes from byte ``address``, aligned as for :class:`BeatWrite`.

    Bytes from behind the end of the memory are undefined. ``data`` comes with ``data_valid``, in the order of the
    requests, and cannot be refused.
    """

    def __init__(self, size: int) -> None:
        super().__init__(
            {
                "valid": Out(1),
                "ready": In(1),
                "address": Out(ceil_log2(size)),
                "data": In(8 * DMA_BEAT_BYTES),
                "data_valid": In(1),
            }
        )
