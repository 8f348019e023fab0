"""The UltraScale+ adapter before cocotbext-pcie's hard block: what every adapter must do, and what only this one
has."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import cocotb
from cocotb.triggers import FallingEdge, Timer
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpAttr, TlpTc, TlpType
from cocotbext.pcie.core.utils import PcieId
from cocotbext.pcie.xilinx.us.tlp import ErrorCode, Tlp_us
from pcie_adapter_tests import (
    acknowledged,
    credit,
    header_fields,
    host_memory,
    interrupts,
    link_reset,
    order,
    registers,
    start,
    transfers,
)

__all__ = ["credit", "header_fields", "interrupts", "link_reset", "order", "registers", "transfers"]


@cocotb.test()
async def other_requests(dut: Any) -> None:
    """What is no memory request arrives as what it is, and its refusal gets back."""
    rng = random.Random(3)
    block, endpoint = await start(dut, rng)
    kinds = (TlpType.IO_READ, TlpType.IO_WRITE, TlpType.FETCH_ADD, TlpType.SWAP_64, TlpType.CAS, TlpType.MEM_READ_LOCKED)
    for tag, kind in enumerate(kinds):
        tlp = Tlp_us()
        tlp.fmt_type = kind
        tlp.length, tlp.first_be, tlp.tag = 1, 15, tag + 20
        tlp.address = 0x1234_5678_0000 if kind.value[0] & 1 else 0x8000
        if kind.value[0] & 2:
            tlp.set_data(rng.randbytes(4))
        tlp.bar_id = 1 if kind in {TlpType.IO_READ, TlpType.IO_WRITE} else 0
        words = bytes(tlp.pack())
        endpoint.requests.clear()
        block.device.cq_queue.put_nowait(tlp)
        completion = await block.root.recv_cpl(tlp.tag, 50000)
        assert completion.status == CplStatus.UR
        assert bytes(endpoint.requests[0].pack()) == words, kind
        assert endpoint.hits[-1] == (tlp.bar_id == 0)
    # The monitor has not seen these requests, so there is no block.finish().


@cocotb.test()
async def message_is_dropped(dut: Any) -> None:
    """A message on CQ, with data or without, is no TLP for the endpoint."""
    rng = random.Random(4)
    block, endpoint = await start(dut, rng)
    source = block.device.cq_source
    for payload in ([], [1], [1, 2, 3]):
        tlp = Tlp_us()
        tlp.fmt_type = TlpType.MEM_WRITE
        tlp.length, tlp.first_be, tlp.last_be = len(payload), 15, 15 if len(payload) > 1 else 0
        tlp.data = b"".join(word.to_bytes(4, "little") for word in payload)
        frame = tlp.pack_us_cq()
        frame.data[2] |= 0b1100 << 11
        await source.send(frame)
    await block.bar.write(4, b"abcd")
    assert await block.bar.read(4, 4, timeout=50000) == b"abcd"
    assert len(endpoint.requests) == 2
    block.finish()


@cocotb.test()
async def throughput(dut: Any) -> None:
    """No cycle is lost on the way to RQ, nor on that from RC to the endpoint."""
    rng = random.Random(6)
    block, endpoint = await start(dut, rng, max_payload=256)
    base, memory = host_memory(block)[0]
    count, beats = 20, 2 + 256 // 8  # the descriptor and the payload
    for index in range(count):
        endpoint.write(base + 256 * index, bytes(256))
    cycles = []

    async def measure(channel: str, last: int) -> None:
        cycle = 0
        while len(cycles) < last:
            await FallingEdge(dut.clk)
            await Timer(2, "ns")
            cycle += 1
            valid, ready, ends = (int(getattr(dut, f"{channel}{name}").value) for name in ("valid", "ready", "last"))
            if valid and ready and ends:
                cycles.append(cycle)

    await measure("pins__rq__t", count)
    assert {after - before for before, after in itertools.pairwise(cycles)} == {beats}
    cycles.clear()
    memory[:4] = b"done"
    tasks = [cocotb.start_soon(endpoint.read(base + 512 * index, 512)) for index in range(16)]
    await measure("pins__rc__t", 32)
    # Beats of 256 bytes behind a header of three dwords. The link is as fast as the stream, less its own overhead.
    assert min(after - before for before, after in itertools.pairwise(cycles)) <= beats + 1
    for task in tasks:
        await task
    block.finish()


@cocotb.test()
async def refused_interrupt(dut: Any) -> None:
    """After msi_fail instead of msi_sent, the message is tried again."""
    block, _endpoint = await start(dut, random.Random(13))
    capability, sent = block.device.functions[0].msi_cap, block.device.cfg_interrupt_msi_sent
    issue = capability.issue_msi_interrupt
    calls = 0

    async def refuse_once(*arguments: Any, **keywords: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            block.device.cfg_interrupt_msi_sent = sent
            await issue(*arguments, **keywords)
            return
        block.device.cfg_interrupt_msi_sent = SimpleNamespace(value=0)
        await FallingEdge(dut.clk)
        dut.pins__cfg_interrupt_msi_fail.value = 1
        await FallingEdge(dut.clk)
        dut.pins__cfg_interrupt_msi_fail.value = 0

    capability.issue_msi_interrupt = refuse_once
    dut.function__msi__request.value = 1
    await acknowledged(dut)
    await Timer(2, "us")
    assert calls == 2
    assert block.interrupt.is_set()

    block.finish()


@cocotb.test()
async def discontinued(dut: Any) -> None:
    """What the hard block discontinues is marked, its credit comes back; what the endpoint nullifies is never sent."""
    rng = random.Random(10)
    block, endpoint = await start(dut, rng)
    base, memory = host_memory(block)[0]
    for kind, payload in (
        (TlpType.MEM_READ, b""),
        (TlpType.MEM_WRITE, b"1234"),
        (TlpType.MEM_WRITE, bytes(32)),
        (TlpType.MEM_READ_64, b""),
    ):
        tlp = Tlp_us()
        tlp.fmt_type = kind
        tlp.address = 1 << 40 if kind == TlpType.MEM_READ_64 else 0x1000
        tlp.first_be, tlp.last_be = 15, 15 if len(payload) > 4 else 0
        tlp.set_data(payload)
        tlp.length = tlp.length or 1
        frame = tlp.pack_us_cq()
        words = len(frame.data)
        source = block.device.cq_source
        if not payload:
            block.device.cq_np_req_count -= 1  # as the model does for a read of its own
        before = endpoint.port.errors
        with LastBeatOnly(source, words):
            frame.discontinue = True
            await source.send(frame)
            await Timer(1, "us")
        assert endpoint.port.errors == before + 1, kind
    endpoint.hold = True
    reads = [cocotb.start_soon(block.bar.read(0, 4, timeout=50000)) for _ in range(3)]
    for read in reads:
        await Timer(2, "us")
        assert len(endpoint.unanswered) == 1
        endpoint.answer()
        await read
    endpoint.write(base, b"\xff" * 64, error=True)
    endpoint.write(base + 64, b"\xfe" * 64)
    await Timer(2, "us")
    assert bytes(memory[:65]) == bytes(64) + b"\xfe"

    tlp = Tlp_us()
    tlp.fmt_type = TlpType.CPL_DATA
    tlp.byte_count = 128
    tlp.set_data(bytes(128))
    tlp.discontinue = True
    before = endpoint.port.errors
    with LastBeatOnly(block.device.rc_source, 35):
        block.device.rc_queue.put_nowait(tlp)
        await Timer(1, "us")
    assert endpoint.port.errors == before + 1
    block.finish()


class LastBeatOnly:
    """Hard blocks assert discontinue with the last beat; the model does so with all."""

    def __init__(self, source: Any, words: int) -> None:
        self._source, self._beats = source, (words + 1) // 2

    def __enter__(self) -> None:
        drive, count = self._source._drive, 0
        self._drive = drive

        async def only_last(transaction: Any) -> None:
            nonlocal count
            count += 1
            if count < self._beats:
                transaction.tuser &= ~(1 << self._source.discontinue_offset)
            await drive(transaction)

        self._source._drive = only_last

    def __exit__(self, *_exception: object) -> None:
        self._source._drive = self._drive


@cocotb.test()
async def bad_completions(dut: Any) -> None:
    """Every error code of RC: refusals and poison arrive as such, strange ones unchanged, and made-up completions not
    at all."""
    rng = random.Random(11)
    block, endpoint = await start(dut, rng)
    for code in ErrorCode:
        tlp = Tlp_us()
        tlp.fmt_type = TlpType.CPL if code == ErrorCode.BAD_STATUS else TlpType.CPL_DATA
        tlp.requester_id, tlp.completer_id = endpoint.id, PcieId(0, 3, 1)
        tlp.tag, tlp.tc, tlp.attr = rng.randrange(32), TlpTc(rng.randrange(8)), TlpAttr(rng.randrange(8))
        tlp.byte_count, tlp.lower_address = rng.choice((12, 4096)), rng.randrange(128)
        if code == ErrorCode.BAD_STATUS:
            tlp.status, tlp.byte_count = rng.choice((CplStatus.UR, CplStatus.CA)), 4
        else:
            tlp.set_data(rng.randbytes(12))
        tlp.error_code = code
        endpoint.answers.clear()
        block.device.rc_queue.put_nowait(tlp)
        await Timer(1, "us")
        if code in {ErrorCode.TIMEOUT, ErrorCode.FLR}:
            assert not endpoint.answers
            continue
        plain = Tlp(tlp)
        plain.ep = code == ErrorCode.POISONED
        assert [bytes(found.pack()) for found in endpoint.answers] == [bytes(plain.pack())], code
    block.finish()
