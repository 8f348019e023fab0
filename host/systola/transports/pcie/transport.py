"""A device on PCIe as a transport: registers word by word through BAR0, blocks and whole inferences by the device's DMA
engine."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from systola.errors import AddressError, DeviceError, LinkError
from systola.identity import reported_config
from systola.tensors import Int8Array
from systola.transports.base import ProgramStopped, Transport
from systola.transports.pcie.function import ALL_ONES, PcieFunction
from systola.transports.pcie.ring import RING_SIZE, DmaRing, RingStopped
from systola_firmware.spec.dma import Descriptor, DmaError, DmaKind
from systola_firmware.spec.memory_map import (
    DMA_IDENTITY,
    DMA_REGISTER_BYTES,
    IDENTITY,
    REGISTERS,
    Region,
    dma_register_address,
    region_bytes,
    register_address,
)
from systola_firmware.spec.pcie import bar_offset, window_bits_of_bar

__all__ = ["PcieTransport"]

#: Bytes of the staging memory. Blocks go through it, and each inference in flight has a part of it.
_STAGING_BYTES = 1 << 20
#: Inputs and outputs begin at multiples of this in it: a cache line.
_ALIGNMENT = 64
#: Blocks of at least this many bytes go by DMA: to read one word takes about as long as a whole short transfer.
_LEAST_TRANSFER = 64
_SCRATCH = register_address("scratch")
#: Regions that DMA reaches.
_MEMORIES = (Region.PROGRAM, Region.ACTIVATION, Region.WEIGHT)


@dataclass(frozen=True)
class _StagingLayout:
    """One inference's part of the staging memory: ``size`` bytes, and the offset in them of each input and output."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int


class PcieTransport(Transport):
    """The device behind ``function``, closed with this object.

    Parameters
    ----------
    timeout:
        Seconds without progress after which a device is given up, and reset.

    Raises :class:`~systola.errors.LinkError` if nothing answers and :class:`~systola.errors.DeviceError` if something
    else than a Systola device answers.
    """

    runs_batches = True

    def __init__(self, function: PcieFunction, *, timeout: float = 10.0) -> None:
        self._function = function
        self.has_cycles = function.has_cycles
        self._lost = False
        try:
            self._window = self._find_window()
            self._sizes = self._find_sizes()
            self._ring = DmaRing(function, self._read_word, self._write_word, timeout=timeout)
            self._staging = function.allocate(_STAGING_BYTES)
            self._scratch = 0
            self._write_word(_SCRATCH, secrets.randbits(32))
        except BaseException:
            function.close()
            raise

    def _find_window(self) -> int:
        try:
            return window_bits_of_bar(self._function.bar_bytes)
        except ValueError as error:
            raise DeviceError(f"{self.describe()} is not a Systola device: it has {error}") from None

    def _find_sizes(self) -> dict[Region, int]:
        """Bytes of each region, as the device's registers tell."""
        registers = {name: self._read_word(register.offset) for name, register in REGISTERS.items()}
        identity = registers["identity"]
        if identity != IDENTITY:
            raise DeviceError(f"{self.describe()} is not a Systola device: its identity register reads {identity:#010x}")
        if self._function.read_word(bar_offset(dma_register_address("identity"), self._window)) != DMA_IDENTITY:
            raise DeviceError(f"{self.describe()} has no DMA engine: its gateware was built without one")
        config = reported_config(registers, self.describe())
        return {region: region_bytes(config, region) for region in Region} | {Region.DMA: DMA_REGISTER_BYTES}

    def describe(self) -> str:
        return self._function.describe()

    def close(self) -> None:
        self._function.close()

    def pump(self, seconds: float) -> None:
        self._function.pump(seconds)

    # Words.

    def _read_word(self, address: int) -> int:
        """A register, or a word of memory. All ones may be its value, or mean that nothing answers: IDENTITY shows
        which."""
        word = self._function.read_word(bar_offset(address, self._window))
        if word == ALL_ONES and self._gone():
            self._lost = True
            raise LinkError(f"{self.describe()} is gone, or its link was reset: it reads all ones")
        return word

    def _write_word(self, address: int, value: int) -> None:
        if address == _SCRATCH:
            self._scratch = value
        self._function.write_word(bar_offset(address, self._window), value)

    def _gone(self) -> bool:
        return self._function.read_word(bar_offset(register_address("identity"), self._window)) == ALL_ONES

    def _return(self) -> None:
        """If the device was gone, go on if it is back with all that it held; its scratch register shows whether it
        is."""
        if not self._lost:
            return
        self._ring.abandon()
        if self._gone() and not (self._function.reset() and not self._gone()):
            raise LinkError(f"{self.describe()} is still gone: it reads all ones")
        if self._function.read_word(bar_offset(_SCRATCH, self._window)) != self._scratch:
            raise LinkError(f"{self.describe()} was configured anew and has lost its program: open it again")
        self._lost = False

    def read(self, address: int, length: int) -> bytes:
        region = self._check(address, length)
        self._return()
        if region in _MEMORIES and length >= _LEAST_TRANSFER:
            return b"".join(self._transfer_from(start, size) for start, size in _transfers(address, length))
        return b"".join(self._read_word(word).to_bytes(4, "little") for word in range(address, address + length, 4))

    def write(self, address: int, data: bytes) -> None:
        region = self._check(address, len(data))
        self._return()
        if region in _MEMORIES and len(data) >= _LEAST_TRANSFER:
            for start, size in _transfers(address, len(data)):
                self._transfer_to(start, data[start - address : start - address + size])
            return
        for offset in range(0, len(data), 4):
            self._write_word(address + offset, int.from_bytes(data[offset : offset + 4], "little"))
        if data:
            self._read_word(register_address("status"))  # answered after the writes: they are done, or the device is gone

    def _check(self, address: int, length: int) -> Region | None:
        """The region of ``length`` bytes at ``address``; the device would not report an access outside of its regions
        as an error."""
        if address % 4 or length % 4:
            raise ValueError(f"an access is made in whole words: {length} bytes at {address:#x}")
        for region in Region:
            if region.base <= address and address + length <= region.base + self._sizes[region]:
                return region
        if length == 0:
            return None
        raise AddressError(f"{self.describe()} has no memory there: {address:#010x} to {address + length:#010x}")

    # Blocks.

    def _transfer_to(self, address: int, data: bytes) -> None:
        self._staging.view[: len(data)] = data
        self._run([Descriptor(DmaKind.TO_DEVICE, len(data), address, self._staging.address)])

    def _transfer_from(self, address: int, size: int) -> bytes:
        self._run([Descriptor(DmaKind.FROM_DEVICE, size, address, self._staging.address)])
        with self._staging.view[:size] as part:
            return bytes(part)

    def _run(self, descriptors: list[Descriptor]) -> None:
        self._ring.wait(self._ring.submit(descriptors))

    # Inferences.

    def run_batch(self, inputs: list[tuple[int, Int8Array]], outputs: list[tuple[int, int]]) -> list[Int8Array]:
        """As :meth:`~systola.transports.base.Transport.run_batch`, with several inferences in flight.

        Each has a part of the staging memory. The device takes its inputs, runs, and sends its outputs without the host
        in between.
        """
        self._return()
        layout = _plan(inputs, outputs)
        runs = len(inputs[0][1])
        together = min(runs, _STAGING_BYTES // layout.size, RING_SIZE // (len(inputs) + len(outputs) + 2))
        answers = [np.empty((runs, size), np.int8) for _, size in outputs]
        events: deque[int] = deque()
        started = finished = 0
        try:
            while finished < runs:
                while started < min(runs, finished + together):
                    base = started % together * layout.size
                    events.append(self._ring.submit(list(self._inference(started, base, layout, inputs, outputs))))
                    started += 1
                self._ring.wait(events.popleft())
                base = finished % together * layout.size
                for (_, size), start, answer in zip(outputs, layout.outputs, answers, strict=True):
                    with self._staging.view[base + start : base + start + size] as part:
                        answer[finished] = np.frombuffer(bytes(part), np.int8)
                finished += 1
        except RingStopped as stopped:
            if stopped.error is DmaError.PROGRAM_FAILED:
                raise ProgramStopped(str(stopped)) from stopped
            raise
        finally:
            if events:
                self._ring.abandon()
        return answers

    def _inference(
        self, number: int, base: int, layout: _StagingLayout, inputs: list[tuple[int, Int8Array]], outputs: list[tuple[int, int]]
    ) -> Iterator[Descriptor]:
        """Put the inputs of inference ``number`` into its part of the staging memory and yield the descriptors for the
        device."""
        for (offset, values), start in zip(inputs, layout.inputs, strict=True):
            data = values[number].tobytes()
            self._staging.view[base + start : base + start + len(data)] = data
            yield Descriptor(DmaKind.TO_DEVICE, len(data), Region.ACTIVATION.base + offset, self._staging.address + base + start)
        yield Descriptor(DmaKind.RUN)
        for (offset, size), start in zip(outputs, layout.outputs, strict=True):
            yield Descriptor(DmaKind.FROM_DEVICE, size, Region.ACTIVATION.base + offset, self._staging.address + base + start)


def _plan(inputs: list[tuple[int, Int8Array]], outputs: list[tuple[int, int]]) -> _StagingLayout:
    starts, end = [], 0
    for size in (*(values.shape[1] for _, values in inputs), *(size for _, size in outputs)):
        starts.append(end)
        end += -(-size // _ALIGNMENT) * _ALIGNMENT
    return _StagingLayout(tuple(starts[: len(inputs)]), tuple(starts[len(inputs) :]), end)


def _transfers(address: int, length: int) -> Iterator[tuple[int, int]]:
    """Address and size of the transfers, none larger than the staging memory, that move ``length`` bytes from
    ``address`` on."""
    for offset in range(0, length, _STAGING_BYTES):
        yield address + offset, min(_STAGING_BYTES, length - offset)
