"""The 7-series adapter before a model of PCIE_2_1: what every adapter must do, and what only this one has."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.triggers import Timer
from cocotbext.pcie.core.tlp import CplStatus, Tlp, TlpType
from cocotbext.pcie.core.utils import PcieId
from pcie_adapter_tests import credit, header_fields, host_memory, interrupts, link_reset, order, registers, start, transfers

__all__ = ["credit", "header_fields", "interrupts", "link_reset", "order", "registers", "transfers"]


@cocotb.test()
async def other_requests(dut: Any) -> None:
    """What is no memory request for BAR0 arrives as what it is, and its refusal gets back."""
    rng = random.Random(3)
    block, endpoint = await start(dut, rng)
    kinds = (
        TlpType.IO_READ,
        TlpType.IO_WRITE,
        TlpType.FETCH_ADD,
        TlpType.SWAP_64,
        TlpType.MEM_READ_LOCKED,
        TlpType.MEM_READ_LOCKED_64,
    )
    for tag, kind in enumerate(kinds):
        tlp = Tlp()
        tlp.fmt_type = kind
        tlp.length, tlp.first_be, tlp.tag = 1, 15, tag + 20
        tlp.address = 0x1234_5678_0000 if kind.value[0] & 1 else 0x8000
        if kind.value[0] & 2:
            tlp.set_data(rng.randbytes(4))
        block.device.arrive(tlp)
        completion = await block.root.recv_cpl(tlp.tag, 50000)
        assert completion.status == CplStatus.UR
        assert bytes(endpoint.requests[-1].pack()) == bytes(tlp.pack()), kind
        assert not endpoint.hits[-1]
    # The monitor has not seen these requests, so there is no block.finish().


@cocotb.test()
async def bad_checksum(dut: Any) -> None:
    """A TLP with a bad checksum is marked, and if it would be answered, its credit comes back; poison stays in the
    header."""
    rng = random.Random(4)
    block, endpoint = await start(dut, rng)
    device = block.device
    beats = device._beats

    def broken(tlp: Tlp) -> list[tuple[int, int, int, int]]:
        return [(data, keep, last, user | 1) for data, keep, last, user in beats(tlp)]

    base = block.function.bar_addr[0]
    kinds = (TlpType.MEM_READ, TlpType.MEM_WRITE, TlpType.CPL_DATA, TlpType.MEM_READ_LOCKED, TlpType.CPL, TlpType.MEM_WRITE)
    for kind in kinds:
        tlp = Tlp()
        tlp.fmt_type = kind
        tlp.length, tlp.first_be, tlp.address, tlp.byte_count = 1, 15, base, 4
        if kind in {TlpType.MEM_WRITE, TlpType.CPL_DATA}:
            tlp.set_data(rng.randbytes(4))
        before = endpoint.port.errors
        device._beats = broken
        device.arrive(tlp)
        await Timer(1, "us")
        device._beats = beats
        assert endpoint.port.errors == before + 1, kind
        endpoint.hold = True
        reads = [cocotb.start_soon(block.bar.read(0, 4, timeout=50000)) for _ in range(2)]
        for read in reads:
            await Timer(2, "us")
            assert len(endpoint.unanswered) == 1
            endpoint.answer()
            await read
    block.finish()


@cocotb.test()
async def nullified(dut: Any) -> None:
    """What the endpoint nullifies is never sent."""
    block, endpoint = await start(dut, random.Random(5))
    base, memory = host_memory(block)[0]
    endpoint.write(base, b"\xff" * 64, error=True)
    endpoint.write(base + 64, b"\xfe" * 64)
    await Timer(2, "us")
    assert bytes(memory[:65]) == bytes(64) + b"\xfe"
    block.finish()


@cocotb.test()
async def own_number(dut: Any) -> None:
    """The requester's number is made of three pins'."""
    rng = random.Random(6)
    block, _endpoint = await start(dut, rng)
    function = block.device.functions[0]
    was = block.device.bus_num, function.pcie_id
    for _ in range(20):
        function.pcie_id = PcieId(rng.randrange(256), rng.randrange(32), rng.randrange(8))
        block.device.bus_num = function.pcie_id.bus
        await Timer(100, "ns")
        assert int(dut.function__function_id.value) == int(function.pcie_id)
    block.device.bus_num, function.pcie_id = was
    block.finish()
