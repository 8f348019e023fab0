"""The device's end of the framed byte link: bytes in, bus accesses, bytes out."""

from amaranth.hdl import Module
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from systola_firmware.link import RECEIVE_BUFFER_BYTES
from systola_hdl.cobs import CobsDecoder, CobsEncoder
from systola_hdl.frame_buffer import FrameBuffer
from systola_hdl.interfaces import Bus
from systola_hdl.link_executor import LinkExecutor
from systola_hdl.link_frames import FrameReceiver, FrameSender

__all__ = ["Link"]


class Link(Component):
    """Serve the protocol of :mod:`systola_firmware.link`.

        i ─▶ FIFO ─▶ COBS decoder ─▶ receiver ─▶ two frames ─▶ executor ─▶ two frames ─▶ sender ─▶ COBS encoder ─▶ o
                                                                  │
                                                                 bus

    Nothing of a frame is executed before all of it has been checked; meanwhile the frame before may execute and the one before
    that may be sent. Both directions carry a byte a cycle.

    Members
    -------
    i: In(stream of 8 bits)
        Bytes from the host; :data:`~systola_firmware.link.RECEIVE_BUFFER_BYTES` are held.
    o: Out(stream of 8 bits)
        Bytes to the host.
    bus:
        The accesses.
    """

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    bus: Out(Bus())

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8, depth=RECEIVE_BUFFER_BYTES)
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.receiver = receiver = FrameReceiver()
        m.submodules.requests = requests = FrameBuffer()
        m.submodules.executor = executor = LinkExecutor()
        m.submodules.responses = responses = FrameBuffer()
        m.submodules.sender = sender = FrameSender()
        m.submodules.encoder = encoder = CobsEncoder()
        connect(m, flipped(self.i), fifo.w_stream)
        connect(m, fifo.r_stream, decoder.i)
        connect(m, decoder.o, receiver.i)
        connect(m, executor.bus, flipped(self.bus))
        connect(m, sender.o, encoder.i)
        connect(m, encoder.o, flipped(self.o))
        m.d.comb += [
            receiver.free.eq(requests.free),
            requests.write.eq(receiver.write),
            requests.write_index.eq(receiver.write_index),
            requests.write_data.eq(receiver.write_data),
            requests.commit.eq(receiver.commit),
            requests.commit_length.eq(receiver.commit_length),
            executor.request_full.eq(requests.full),
            executor.request_length.eq(requests.length),
            requests.read_index.eq(executor.request_index),
            executor.request_data.eq(requests.read_data),
            requests.release.eq(executor.request_release),
            executor.response_free.eq(responses.free),
            responses.write.eq(executor.response_write),
            responses.write_index.eq(executor.response_index),
            responses.write_data.eq(executor.response_data),
            responses.commit.eq(executor.response_commit),
            responses.commit_length.eq(executor.response_length),
            sender.full.eq(responses.full),
            sender.length.eq(responses.length),
            responses.read_index.eq(sender.read_index),
            sender.read_data.eq(responses.read_data),
            responses.release.eq(sender.release),
        ]
        return m
