"""What the PCIe benches share: cocotbext-pcie's root complex, a hard block on the pins of the block under test, the TLP
monitor.

The monitor sees every TLP between root complex and hard block, in both directions. Its complaints are kept, for an
exception in one of the model's tasks would not end a test: :meth:`HardBlock.finish` raises them.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

from cocotb.triggers import FallingEdge, RisingEdge, Timer
from cocotbext.axi import AxiStreamBus
from cocotbext.pcie.core import RootComplex
from cocotbext.pcie.core.caps import PciCapId
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType
from cocotbext.pcie.xilinx.us import UltraScalePlusPcieDevice
from series7_model import Series7Device
from support.benches.stream_rules import StreamRule
from support.pcie.tlp_monitor import TlpMonitor, TlpViolation

CLOCK_HZ = 250e6


def words_of(tlp: Tlp) -> list[int]:
    """A TLP of cocotbext-pcie as dwords, the first wire byte on top."""
    raw = bytes(tlp.pack())
    return [int.from_bytes(raw[low : low + 4], "big") for low in range(0, len(raw), 4)]


def tlp_of(words: list[int]) -> Tlp:
    """The opposite of :func:`words_of`; cocotbext-pcie's own check must be content with it."""
    tlp = Tlp.unpack(b"".join(word.to_bytes(4, "big") for word in words))
    assert tlp.check(), tlp
    return tlp


def pauses(rng: random.Random, probability: float) -> Iterator[bool]:
    """For ``set_pause_generator``."""
    return (rng.random() < probability for _ in itertools.count())


def link_is_up(dut: Any) -> bool:
    """Neither reset nor is the link down."""
    reset = dut.pins__user_reset if hasattr(dut, "pins__user_reset") else dut.pins__user_reset_out
    return bool(int(dut.pins__user_lnk_up.value)) and not int(reset.value) and not int(dut.rst.value)


class HardBlock:
    """Root complex, link and hard block, whose pins are those of the block under test that begin with ``pins__``.

    Parameters
    ----------
    dut:
        The block under test, with ``sys_reset`` beside its pins: low is reset.
    bar_bytes:
        Size of BAR0.
    bar_64:
        BAR0 is one of 64 bits, above 4 GiB.
    """

    #: Streams that can be paused, by the names of the model's attributes; that of the device's requests.
    channels: tuple[str, ...]
    requests: str
    #: Streams to the hard block, by their names on the pins.
    sent: tuple[str, ...]

    def __init__(self, dut: Any, bar_bytes: int, *, bar_64: bool = False) -> None:
        self.dut = dut
        dut.sys_reset.value = 0  # until enumeration begins
        dut.rst.value = 1
        self.root = RootComplex()
        self.device = self.make_device()
        logging.getLogger("cocotb.pcie").setLevel(logging.ERROR)  # it warns of every empty slot
        logging.getLogger("cocotb.block").setLevel(logging.WARNING)
        self.root.make_port().connect(self.device)
        self.device.functions[0].configure_bar(0, bar_bytes, bar_64, bar_64)
        self.monitor = TlpMonitor()
        self.violations: list[TlpViolation] = []
        self.faulty = 0  #: so many TLPs to come from the host are broken on purpose
        self.forgotten = False
        self._due: dict[int, int] = {}  # bytes that were asked for, by tag
        self._watch()

    def make_device(self) -> Any:
        """The model on the pins."""
        raise NotImplementedError

    def empty(self) -> None:
        """Called while the link is down, each cycle for some time: take out of the model what it was in the middle
        of."""
        raise NotImplementedError

    def _watch(self) -> None:
        port = self.device.upstream_port
        receive, send = port.rx_handler, self.device.upstream_send
        configuration = {TlpType.CFG_READ_0, TlpType.CFG_WRITE_0}  # is the model's own matter

        async def to_device(tlp: Tlp) -> None:
            if tlp.fmt_type == TlpType.CPL and tlp.status != CplStatus.SC and tlp.tag in self._due:
                tlp.byte_count = self._due[tlp.tag]  # the root complex leaves it out of its refusals
            if tlp.fmt_type not in configuration:
                words = words_of(tlp)
                self._judge(lambda: self.monitor.to_device(words, faulty=self.faulty > 0))
                self.faulty -= self.faulty > 0
            await receive(tlp)

        async def from_device(tlp: Tlp) -> None:
            words = words_of(tlp)
            if tlp.fmt_type in {TlpType.MEM_READ, TlpType.MEM_READ_64}:
                self._due[tlp.tag] = tlp.get_be_byte_count()
            self._judge(lambda: self.monitor.from_device(words))
            await send(tlp)

        port.rx_handler = to_device
        self.device.upstream_send = from_device

    def _judge(self, see: Any) -> None:
        try:
            see()
        except TlpViolation as violation:
            # The model's link hands over what was on it when it went down: completions that the monitor has forgotten.
            if not (self.forgotten and violation.rule == "unexpected completion"):
                self.violations.append(violation)

    def forget(self) -> None:
        """The monitor forgets all requests under way; from now on it does not mind completions that nothing asked
        for."""
        self.monitor.reset()
        self.forgotten = True

    def pause(self, rng: random.Random, probability: float = 0.3, channels: tuple[str, ...] | None = None) -> None:
        """Random pauses on the hard block's streams, all of them if none are named."""
        for channel in channels or self.channels:
            getattr(self.device, channel).set_pause_generator(pauses(rng, probability))

    async def enumerate(self, *, max_payload: int = 128, max_read_request: int = 512, boundary: int = 64) -> None:
        """Wait for the link, enumerate, give the function its sizes (in bytes), bus mastering and one MSI vector."""
        for _ in range(5):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.dut.sys_reset.value = 1
        while not link_is_up(self.dut):
            await RisingEdge(self.dut.clk)
        # The root complex answers reads with completions of this size, so it is set before anything else.
        self.root.max_payload_size = (max_payload // 128).bit_length() - 1
        self.root.read_completion_boundary = boundary == 128
        self.monitor.max_payload = 128 << 5  # the model's, until it is configured
        self.monitor.bus_master = False
        await self.root.enumerate()
        self.function = self.root.find_device(self.device.functions[0].pcie_id)
        await self.function.enable_device()
        await self.function.set_master()
        await self.function.alloc_irq_vectors(1, 1)
        await self.function.set_mps((max_payload // 128).bit_length() - 1)
        control = await self.function.capability_read_word(PciCapId.EXP, 8)
        await self.function.capability_write_word(
            PciCapId.EXP, 8, control & ~0x7000 | (max_read_request // 128).bit_length() - 1 << 12
        )
        await self.function.capability_write_word(PciCapId.EXP, 16, 8 if boundary == 128 else 0)
        self.monitor.max_payload = max_payload
        self.monitor.max_read_request = max_read_request
        self.monitor.read_boundary = boundary
        self.monitor.bus_master = True
        self.monitor.function_id = int(self.device.functions[0].pcie_id)
        self.bar = self.function.bar_window[0]
        self.interrupt = self.function.msi_vectors[0].event
        await Timer(100, "ns")

    async def reset_link(self, forget: Callable[[], None] = lambda: None) -> None:
        """Take the link down and up again; ``forget`` is called while it is down. Configuration is kept, as the model
        does."""
        dut = self.dut
        dut.sys_reset.value = 0
        while link_is_up(dut):
            await RisingEdge(dut.clk)
        await Timer(1, "us")
        for _ in range(200):
            forget()
            self.empty()
            await RisingEdge(dut.clk)
        self.forget()
        dut.sys_reset.value = 1
        while not link_is_up(dut):
            await RisingEdge(dut.clk)

    def finish(self, *, unanswered: bool = False) -> None:
        """Raise the first complaint; unless ``unanswered``, every request must have been answered."""
        if self.violations:
            raise self.violations[0]
        if not unanswered:
            self.monitor.finish()


class UltrascaleBlock(HardBlock):
    """cocotbext-pcie's UltraScale+ hard block, on the pins of ``UltrascalePins``."""

    channels = ("cq_source", "cc_sink", "rq_sink", "rc_source")
    requests = "rq_sink"
    sent = ("cc", "rq")

    def make_device(self) -> UltraScalePlusPcieDevice:
        dut = self.dut
        dut.pins__cfg_interrupt_msi_fail.value = 0

        def pins(*names: str) -> dict[str, Any]:
            return {name: getattr(dut, f"pins__{name}") for name in names}

        return UltraScalePlusPcieDevice(
            pcie_generation=3,
            pcie_link_width=2,
            user_clk_frequency=CLOCK_HZ,
            max_payload_size=1024,
            enable_client_tag=True,
            pf0_msi_enable=True,
            user_clk=dut.clk,
            user_reset=dut.pins__user_reset,
            sys_reset=dut.sys_reset,
            **{f"{name}_bus": AxiStreamBus.from_prefix(dut, f"pins__{name}_") for name in ("cq", "cc", "rq", "rc")},
            **pins("user_lnk_up", "pcie_cq_np_req", "pcie_rq_seq_num0", "pcie_rq_seq_num_vld0", "cfg_bus_number"),
            **pins("cfg_max_payload", "cfg_max_read_req", "cfg_rcb_status", "cfg_function_status"),
            **pins("cfg_interrupt_msi_enable", "cfg_interrupt_msi_int", "cfg_interrupt_msi_sent", "cfg_interrupt_msi_fail"),
        )

    def empty(self) -> None:
        device = self.device
        for sink in (device.rq_sink, device.cc_sink):
            if sink.active:  # end its packet with a nullified one
                sink.sample_obj = sink._transaction_obj(tlast=1, tkeep=3, tuser=1 << sink.discontinue_offset)
                sink.sample_sync.set()
        for queue in (device.cq_queue, device.cq_np_queue, device.rc_queue, device.rq_np_queue, device.rq_seq_num):
            while not queue.empty():
                queue.get_nowait()
        for source in (device.cq_source, device.rc_source):
            source.drive_obj = None
            source.drive_sync.set()
        device.active_request = [None] * len(device.active_request)
        device.cq_np_req_count = device.cpld_credit_count = device.rx_buf_cplh_fc_count = device.rx_buf_cpld_fc_count = 0


class Series7Block(HardBlock):
    """:class:`~series7_model.Series7Device`, on the pins of ``Series7Pins``."""

    channels = ("source", "sink")
    requests = "sink"
    sent = ("s_axis_tx",)

    def make_device(self) -> Series7Device:
        return Series7Device(self.dut, 125e6)

    def empty(self) -> None:
        self.device.empty()


def block_class() -> type[HardBlock]:
    """The hard block that the runner has built an adapter for."""
    return {"ultrascale": UltrascaleBlock, "series7": Series7Block}[os.environ["SYSTOLA_PCIE_BLOCK"]]


async def watch_sent(dut: Any, channel: str) -> None:
    """See that what is offered to the hard block stays until it is taken, and that nothing pauses inside a packet."""
    rule = StreamRule(channel)
    inside = False
    while True:
        await FallingEdge(dut.clk)
        await Timer(2, "ns")
        if not link_is_up(dut):
            rule, inside = StreamRule(channel), False
            continue
        valid, ready, last, *payload = (
            int(getattr(dut, f"pins__{channel}__{name}").value) for name in ("tvalid", "tready", "tlast", "tdata", "tkeep", "tuser")
        )
        assert valid or not inside, f"{channel}: a pause inside a packet"
        rule.check(bool(valid), bool(ready), last, *payload)
        inside = bool(valid) and not (ready and last)


class TlpPort:
    """The endpoint's side of a pair of TLP streams (``rx`` from the block, ``tx`` to it), in Python.

    ``received`` is called with the dwords of each TLP and whether it hits BAR0; TLPs marked with error are only
    counted, in :attr:`errors`. ``send`` puts a TLP into the queue. There is no pause inside a TLP; ``stall`` and
    ``gap`` are probabilities of a refused beat and of a pause between two TLPs.
    """

    def __init__(self, dut: Any, received: Any, rng: random.Random, *, stall: float = 0.0, gap: float = 0.0) -> None:
        self.dut, self._received, self._rng = dut, received, rng
        self.stall, self.gap = stall, gap
        self.errors = 0
        self.beats: list[int] = []
        self.ends: list[int] = []

    def send(self, words: list[int], *, error: bool = False) -> None:
        """Offer a TLP; with ``error`` its last beat says that it is to be nullified."""
        for low in range(0, len(words), 2):
            pair = words[low : low + 2]
            last = low + 2 >= len(words)
            data = pair[0] | (pair[1] << 32 if len(pair) == 2 else self._rng.getrandbits(32) << 32)
            keep = 3 if len(pair) == 2 else 1
            self.beats.append(data | keep << 64 | (low == 0) << 66 | last << 67 | (error and last) << 68)

    async def run(self) -> None:
        """Drive both streams, at the falling edge."""
        dut, rng = self.dut, self._rng
        words: list[int] = []
        failed = hit = False
        inside = False
        rule = StreamRule("rx")
        while True:
            dut.rx__ready.value = ready = rng.random() >= self.stall
            offered = bool(self.beats) and (inside or rng.random() >= self.gap)
            dut.tx__valid.value = offered
            dut.tx__payload.value = self.beats[0] if offered else rng.getrandbits(70)
            await Timer(1, "step")
            await Timer(1, "ns")
            if not link_is_up(dut):
                words, inside, rule = [], False, StreamRule("rx")
            else:
                rule.check(bool(int(dut.rx__valid.value)), ready, int(dut.rx__payload.value))
                if offered and int(dut.tx__ready.value):
                    beat = self.beats.pop(0)
                    inside = not beat >> 67 & 1
                elif offered:
                    inside = True  # it must stay
                if ready and int(dut.rx__valid.value):
                    beat = int(dut.rx__payload.value)
                    assert bool(beat >> 66 & 1) == (not words), "first is not the first beat"
                    if not words:
                        hit, failed = bool(beat >> 69 & 1), False
                    failed |= bool(beat >> 68 & 1)
                    words += [beat & 0xFFFF_FFFF] + ([beat >> 32 & 0xFFFF_FFFF] if beat >> 65 & 1 else [])
                    assert beat >> 67 & 1 or beat >> 64 & 3 == 3, "half a beat before the last"
                    if beat >> 67 & 1:
                        self.errors += failed
                        if not failed:
                            self._received(words, hit)
                        words = []
            await FallingEdge(dut.clk)
