"""In the guest: the vfio and sysfs backends against Linux and QEMU's ``edu`` device, neither of which was written here.

The device's registers are in QEMU's ``docs/specs/edu.rst``. The machine has an IOMMU that remaps interrupts, one that
does not, or none; ``expect=`` in the kernel's command line says which.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from systola.errors import LinkError
from systola.transports.pcie.binding import bind_steps, perform, unbind_steps
from systola.transports.pcie.function import Buffer, PcieFunction
from systola.transports.pcie.listed import ListedFunction, find_functions
from systola.transports.pcie.sysfs import SysfsFunction
from systola.transports.pcie.system import System
from systola.transports.pcie.vfio import VfioFunction

_ID, _LIVE, _FACTORIAL, _STATUS, _IRQ_STATUS, _IRQ_ACK = 0x00, 0x04, 0x08, 0x20, 0x24, 0x64
_DMA_FROM, _DMA_TO, _DMA_COUNT, _DMA_COMMAND = 0x80, 0x88, 0x90, 0x98
_START, _TO_MEMORY, _SIGNAL = 1, 2, 4
#: The device's own memory of 4 KiB; QEMU 7.2 ends at once for a transfer of all of it.
_INSIDE, _BYTES = 0x40000, 4000
#: Within reach of the device, and mapped for nobody.
_UNMAPPED = 0x0800_0000
_SECONDS = 20.0


def check(what: str, fact: bool) -> None:
    print(f"{'PASS' if fact else 'FAIL'} {what}", flush=True)
    if not fact:
        raise SystemExit(what)


def sentence(action: Callable[[], object]) -> str:
    """What the driver says when ``action`` fails."""
    try:
        action()
    except LinkError as error:
        return str(error)
    return "no error"


def transfer(function: PcieFunction, source: int, target: int, count: int, command: int) -> bool:
    """One of the device's transfers; whether its interrupt came, or without interrupts, whether it ended."""
    for register, value in ((_DMA_FROM, source), (_DMA_TO, target), (_DMA_COUNT, count)):
        function.write_word(register, value & 0xFFFF_FFFF)
        function.write_word(register + 4, value >> 32)
    function.write_word(_DMA_COMMAND, command | _START | (_SIGNAL if function.has_interrupt else 0))
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        called = function.wait_interrupt(1.0)
        if called:
            function.write_word(_IRQ_ACK, function.read_word(_IRQ_STATUS))
        if not function.read_word(_DMA_COMMAND) & _START and (called or not function.has_interrupt):
            return True
    return False


def registers(function: PcieFunction) -> None:
    check("BAR0 is 1 MiB", function.bar_bytes == 1 << 20)
    check("identity", function.read_word(_ID) == 0x010000ED)
    function.write_word(_LIVE, 0x12345678)
    check("a word written comes back inverted", function.read_word(_LIVE) == 0x12345678 ^ 0xFFFF_FFFF)


def memory(function: PcieFunction) -> Buffer:
    buffer = function.allocate(8192)
    pattern = os.urandom(_BYTES)
    buffer.view[:_BYTES] = pattern
    check("transfer to the device", transfer(function, buffer.address, _INSIDE, _BYTES, 0))
    check("transfer from the device", transfer(function, _INSIDE, buffer.address + 4096, _BYTES, _TO_MEMORY))
    check("the bytes are the same", bytes(buffer.view[4096 : 4096 + _BYTES]) == pattern)
    return buffer


def interrupt(function: PcieFunction) -> None:
    check("there is an interrupt", function.has_interrupt)
    check("none comes by itself", not function.wait_interrupt(0.05))
    function.write_word(_STATUS, 0x80)
    function.write_word(_FACTORIAL, 5)
    check("the event wakes", function.wait_interrupt(_SECONDS))
    check("5! is 120", function.read_word(_FACTORIAL) == 120)
    function.write_word(_IRQ_ACK, function.read_word(_IRQ_STATUS))
    function.write_word(_STATUS, 0)


def faults(word: str) -> list[str]:
    """Lines of the kernel's log with ``word``."""
    with open("/dev/kmsg", "rb", buffering=0) as log:
        os.set_blocking(log.fileno(), False)
        lines = []
        while True:
            try:
                lines.append(os.read(log.fileno(), 8192).decode(errors="replace"))
            except BlockingIOError:
                return [line for line in lines if word in line]


def another_fault(before: int, word: str = "fault addr") -> bool:
    """Whether the kernel logs more than ``before`` faults with ``word``, which it does some time after them."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if sum(word in line for line in faults("fault addr")) > before:
            return True
        time.sleep(0.1)
    return False


def another_process(listed: ListedFunction, kind: type[PcieFunction]) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if "is in use by another program" in sentence(lambda: kind(listed)) else 1)  # type: ignore[call-arg]
    check("a second process is refused", os.waitpid(child, 0)[1] == 0)


def with_vfio(listed: ListedFunction) -> None:
    perform(bind_steps(listed))
    check("bound", listed.driver == "vfio-pci")
    check("nothing is left to bind", bind_steps(listed) == [])
    function = VfioFunction(listed)
    registers(function)
    interrupt(function)
    buffer = memory(function)
    another_process(listed, VfioFunction)
    check("no fault so far", not faults("fault addr"))
    transfer(function, _INSIDE, _UNMAPPED, 256, _TO_MEMORY)
    check("the IOMMU stops a transfer to an unmapped address", another_fault(0, f"{_UNMAPPED:#x}"))
    function.release(buffer)
    before = len(faults("fault addr"))
    transfer(function, _INSIDE, buffer.address, 256, _TO_MEMORY)
    check("a released buffer is out of reach", another_fault(before))
    memory(function)
    function.close()
    function = VfioFunction(listed)
    memory(function)
    function.close()
    perform(unbind_steps(listed))
    check("given back", listed.driver is None)


def with_sysfs(listed: ListedFunction) -> None:
    check("without an IOMMU vfio-pci cannot be used", "has no IOMMU group" in sentence(lambda: bind_steps(listed)))
    function = SysfsFunction(listed)
    registers(function)
    check("huge pages are asked for", "huge pages, and none is free" in sentence(lambda: function.allocate(8192)))
    Path("/proc/sys/vm/nr_hugepages").write_text("4")
    another_process(listed, SysfsFunction)
    memory(function)
    function.close()


def main() -> None:
    expected = Path("/proc/cmdline").read_text().split("expect=")[1].split()[0]
    (listed,) = [listed for listed in find_functions(System()) if listed.identity == (0x1234, 0x11E8)]
    check("BAR0's size is known before the device is opened", listed.bar_bytes == 1 << 20)
    if expected == "remapping":
        check("the IOMMU is in the way of sysfs", "is behind an IOMMU" in sentence(lambda: SysfsFunction(listed)))
        with_vfio(listed)
    elif expected == "no-remapping":
        perform(bind_steps(listed))
        check("EPERM has its sentence", "does not remap interrupts" in sentence(lambda: VfioFunction(listed)))
        Path("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts").write_text("1")
        VfioFunction(listed).close()
        check("the advice in it works", True)
    else:
        with_sysfs(listed)


main()
