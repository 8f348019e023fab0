"""What several test benches need to drive the blocks of this package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.sim import SimulatorContext

__all__ = ["BusDriver", "BusError"]


class BusError(Exception):
    """The bus answered with ``error``; the argument is the address."""


class BusDriver:
    """The initiator's side of a :class:`~systola_hdl.host.bus.Bus` that a test has in its hand: ``bus`` is
    the target's port."""

    def __init__(self, bus: Any) -> None:
        self._request = bus.request
        self._response = bus.response

    async def _access(self, ctx: SimulatorContext, address: int, write: int, data: int) -> int:
        ctx.set(self._request.payload, {"address": address, "write": write, "data": data})
        ctx.set(self._request.valid, 1)
        ctx.set(self._response.ready, 1)
        await ctx.tick().until(self._request.ready)
        ctx.set(self._request.valid, 0)
        (payload,) = await ctx.tick().sample(self._response.payload).until(self._response.valid)
        ctx.set(self._response.ready, 0)
        if payload.error:
            raise BusError(address)
        return int(payload.data)

    async def read(self, ctx: SimulatorContext, address: int) -> int:
        """One word. Raises :class:`BusError`."""
        return await self._access(ctx, address, 0, 0)

    async def write(self, ctx: SimulatorContext, address: int, data: int) -> None:
        """One word. Raises :class:`BusError`."""
        await self._access(ctx, address, 1, data)

    async def read_bytes(self, ctx: SimulatorContext, address: int, length: int) -> bytes:
        """``length`` bytes, a multiple of 4."""
        words = [await self.read(ctx, address + offset) for offset in range(0, length, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)

    async def write_words(self, ctx: SimulatorContext, address: int, words: Sequence[int]) -> None:
        """Words from ``address`` on."""
        for index, word in enumerate(words):
            await self.write(ctx, address + 4 * index, word)

    async def write_bytes(self, ctx: SimulatorContext, address: int, content: bytes) -> None:
        """Bytes, a multiple of 4 of them."""
        for offset in range(0, len(content), 4):
            await self.write(ctx, address + offset, int.from_bytes(content[offset : offset + 4], "little"))
