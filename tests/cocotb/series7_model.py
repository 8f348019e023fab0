"""A model of the 7-series hard block PCIE_2_1 within its AXI wrapper, after PG054.

It is our own, so it judges only what it was told of PG054. Configuration space, TLPs to bytes and back, and their
checks are cocotbext-pcie's, and so are link and root complex.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.queue import Queue
from cocotb.triggers import RisingEdge
from cocotbext.pcie.core.device import Device
from cocotbext.pcie.core.tlp import Tlp, TlpType
from cocotbext.pcie.xilinx.us.usp_model import UltraScalePlusPcieFunction

CONFIGURATION = {TlpType.CFG_READ_0, TlpType.CFG_WRITE_0}
COMPLETIONS = {TlpType.CPL, TlpType.CPL_DATA, TlpType.CPL_LOCKED, TlpType.CPL_LOCKED_DATA}


class Channel:
    """Pauses of one stream."""

    def __init__(self) -> None:
        self._pauses: Iterator[bool] | None = None

    def set_pause_generator(self, pauses: Iterator[bool]) -> None:
        self._pauses = pauses

    def paused(self) -> bool:
        return self._pauses is not None and next(self._pauses)


class Series7Device(Device):
    """The hard block, with one function, one MSI vector, and flow control of non-posted requests (TRN_NP_FC)."""

    def __init__(self, dut: Any, clock_hz: float) -> None:
        super().__init__()
        self.default_function = UltraScalePlusPcieFunction  # for its capabilities
        self.dut = dut
        self.source, self.sink = Channel(), Channel()
        function = self.make_function()
        function.deregister_capability(function.msix_cap)
        function.pcie_cap.max_payload_size_supported = 3
        function.pcie_cap.extended_tag_supported = False
        self.upstream_port.max_link_speed, self.upstream_port.max_link_width = 2, 4
        self.arrived = 0
        #: Posted ones and completions, and the others, each with its number in the order of arrival.
        self.requests: deque[tuple[int, Tlp]] = deque()
        self.non_posted: deque[tuple[int, Tlp]] = deque()
        self.wanted = 0  #: credit for non-posted requests
        self.frame: list[tuple[int, int, int, int]] = []  #: beats to come of the TLP that is being received
        self.words: list[int] = []
        self.received: Queue[Tlp] = Queue()
        for name in ("user_lnk_up", "m_axis_rx__tvalid", "s_axis_tx__tready", "cfg_interrupt_rdy", "cfg_interrupt_msienable"):
            self.pin(name).value = 0
        self.pin("user_reset_out").value = 1
        cocotb.start_soon(Clock(dut.clk, round(1e9 / clock_hz), unit="ns").start())
        for task in (self._run_link, self._run_source, self._run_sink, self._run_send, self._run_state, self._run_interrupt):
            cocotb.start_soon(task())

    def pin(self, name: str) -> Any:
        return getattr(self.dut, f"pins__{name}")

    @property
    def is_up(self) -> bool:
        return bool(int(self.pin("user_lnk_up").value)) and not int(self.pin("user_reset_out").value)

    def empty(self) -> None:
        """Forget what is under way."""
        while not self.received.empty():
            self.received.get_nowait()
        self.requests.clear()
        self.non_posted.clear()
        self.frame, self.words, self.wanted = [], [], 0

    async def upstream_recv(self, tlp: Tlp) -> None:
        if tlp.fmt_type in CONFIGURATION:
            self.bus_num = tlp.completer_id.bus
            await self.functions[0].upstream_recv(tlp)
            return
        tlp.release_fc()
        self.arrive(tlp)

    def arrive(self, tlp: Tlp) -> None:
        """To be received: posted requests and completions pass those that wait for credit; these pass nothing."""
        self.arrived += 1
        (self.non_posted if tlp.is_nonposted() else self.requests).append((self.arrived, tlp))

    def _next(self) -> Tlp | None:
        if self.wanted and self.non_posted and (not self.requests or self.non_posted[0][0] < self.requests[0][0]):
            self.wanted -= 1
            return self.non_posted.popleft()[1]
        return self.requests.popleft()[1] if self.requests else None

    def _beats(self, tlp: Tlp) -> list[tuple[int, int, int, int]]:
        """tdata, tkeep, tlast and tuser of each beat."""
        raw = bytes(tlp.pack())
        words = [int.from_bytes(raw[low : low + 4], "big") for low in range(0, len(raw), 4)]
        user = bool(tlp.ep) << 1
        if tlp.fmt_type not in COMPLETIONS:
            bar = self.functions[0].match_bar(tlp.address, tlp.fmt_type in {TlpType.IO_READ, TlpType.IO_WRITE})
            user |= 1 << 2 + bar[0] if bar else 0
        beats = []
        for low in range(0, len(words), 2):
            pair = words[low : low + 2]
            half = len(pair) == 1
            upper = random.getrandbits(32) if half else pair[1]
            beats.append((pair[0] | upper << 32, 0x0F if half else 0xFF, int(low + 2 >= len(words)), user))
        return beats

    async def _run_link(self) -> None:
        """Link and reset follow in any order."""
        was, late = None, {"user_lnk_up": 0, "user_reset_out": 0}
        while True:
            await RisingEdge(self.dut.clk)
            up = int(self.dut.sys_reset.value)
            for name, value in (("user_lnk_up", up), ("user_reset_out", not up)):
                if up != was:
                    late[name] = random.randrange(12)
                elif late[name]:
                    late[name] -= 1
                else:
                    self.pin(name).value = value
            was = up

    async def _run_source(self) -> None:
        offered = False
        while True:
            await RisingEdge(self.dut.clk)
            if not self.is_up:
                offered = False
                self.pin("m_axis_rx__tvalid").value = 0
                continue
            if int(self.pin("rx_np_req").value) and int(self.pin("rx_np_ok").value):
                self.wanted += 1
            if offered and int(self.pin("m_axis_rx__tready").value):
                self.frame.pop(0)
                offered = False
            if not self.frame and (tlp := self._next()):
                self.frame = self._beats(tlp)
            if not offered:
                offered = bool(self.frame) and not self.source.paused()
                self.pin("m_axis_rx__tvalid").value = offered
                values = self.frame[0] if offered else (random.getrandbits(64), random.getrandbits(8), 0, random.getrandbits(22))
                for name, value in zip(("tdata", "tkeep", "tlast", "tuser"), values, strict=True):
                    self.pin(f"m_axis_rx__{name}").value = value

    async def _run_sink(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            if not self.is_up:
                self.pin("s_axis_tx__tready").value = 0
                continue
            if int(self.pin("s_axis_tx__tvalid").value) and int(self.pin("s_axis_tx__tready").value):
                data, keep, last, user = (
                    int(self.pin(f"s_axis_tx__{name}").value) for name in ("tdata", "tkeep", "tlast", "tuser")
                )
                assert keep in {0x0F, 0xFF}, f"tkeep {keep:#x}"
                assert keep == 0xFF or last, "half a beat before the last"
                self.words += [data & 0xFFFF_FFFF] + ([data >> 32] if keep == 0xFF else [])
                if last:
                    if not user & 8:
                        tlp = Tlp.unpack(b"".join(word.to_bytes(4, "big") for word in self.words))
                        assert tlp.check(), tlp
                        self.received.put_nowait(tlp)
                    self.words = []
            self.pin("s_axis_tx__tready").value = not self.sink.paused() and self.received.qsize() < 8

    async def _run_send(self) -> None:
        while True:
            await self.upstream_send(await self.received.get())

    async def _run_state(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            function = self.functions[0]
            for name, register, byte in (("cfg_command", 1, 0), ("cfg_dcommand", function.pcie_cap.offset + 2, 0)):
                self.pin(name).value = await function.read_config_register(register) >> 8 * byte & 0xFFFF
            self.pin("cfg_lcommand").value = await function.read_config_register(function.pcie_cap.offset + 4) & 0xFFFF
            self.pin("cfg_bus_number").value = self.bus_num
            self.pin("cfg_device_number").value = function.device_num
            self.pin("cfg_function_number").value = function.function_num
            self.pin("cfg_interrupt_msienable").value = function.msi_cap.msi_enable

    async def _run_interrupt(self) -> None:
        while True:
            await RisingEdge(self.dut.clk)
            self.pin("cfg_interrupt_rdy").value = 0
            if self.is_up and int(self.pin("cfg_interrupt").value) and not int(self.pin("cfg_interrupt_rdy").value):
                assert not int(self.pin("cfg_interrupt_assert").value), "an interrupt of the old kind"
                wait = random.randrange(6)
                while wait or not self.received.empty():  # the message is behind what was transmitted before
                    await RisingEdge(self.dut.clk)
                    wait -= wait > 0
                    assert int(self.pin("cfg_interrupt").value) or not self.is_up, "an interrupt that was taken back"
                await self.functions[0].msi_cap.issue_msi_interrupt(int(self.pin("cfg_interrupt_di").value))
                self.pin("cfg_interrupt_rdy").value = 1
