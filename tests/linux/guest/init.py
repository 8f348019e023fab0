#!PYTHON
"""First process of the guest: mounts, modules, then the script that the kernel's command line names; its result to the
console."""

import ctypes
import os
import runpy
import sys
import traceback
from pathlib import Path

_POWER_OFF = 0x4321FEDC
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(kind: str, path: str) -> None:
    Path(path).mkdir(exist_ok=True)
    if _libc.mount(kind.encode(), path.encode(), kind.encode(), 0, None):
        raise OSError(ctypes.get_errno(), f"mount of {path}")


def _load_modules() -> None:
    finit_module = 313  # x86-64
    for name in Path("/modules/order").read_text().split():
        with open(f"/modules/{name}", "rb") as module:
            if _libc.syscall(finit_module, module.fileno(), b"", 0):
                raise OSError(ctypes.get_errno(), f"module {name}")


def main() -> None:
    for kind, path in (("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")):
        _mount(kind, path)
    for _ in range(3):
        os.dup2(os.open("/dev/console", os.O_RDWR), _)
    _load_modules()
    script = next(word.removeprefix("guest=") for word in Path("/proc/cmdline").read_text().split() if word.startswith("guest="))
    sys.path[:0] = Path("/guest/path").read_text().split()
    sys.argv = [script]
    runpy.run_path(f"/guest/{script}.py", run_name="__main__")
    print("GUEST OK", flush=True)


try:
    main()
except BaseException:
    traceback.print_exc()
    print("GUEST FAILED", flush=True)
finally:
    os.sync()
    _libc.reboot(_POWER_OFF)
