"""A Linux guest in QEMU: its kernel, an initial file system with this machine's own Python, and the run of one script
in it.

The kernel comes from ``SYSTOLA_LINUX``, or from the folder ``linux`` of the cache: ``vmlinuz`` and the modules of vfio.
``fetch.sh`` puts a Debian kernel there. Nothing here needs the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

import cobs
import numpy as np

from systola_sim.verilated.verilator import cache_folder

__all__ = ["build", "linux_folder", "missing", "start"]

_ROOT = Path(__file__).resolve().parents[3]
_HERE = _ROOT / "tests" / "linux"
QEMU = "qemu-system-x86_64"

#: In the order in which they need each other.
_MODULES = ("irqbypass", "vfio", "vfio_virqfd", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci")
#: Of the standard library, what no guest needs.
_LEFT_OUT = (
    "test",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "tkinter",
    "turtledemo",
    "site-packages",
    "dist-packages",
    "tests",
)


def linux_folder() -> Path:
    """Where the guest's kernel is."""
    override = os.environ.get("SYSTOLA_LINUX")
    return Path(override) if override else cache_folder() / "linux"


def missing() -> str | None:
    """Why no guest can run here, None if one can."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed (Debian: apt-get install --no-install-recommends qemu-system-x86)"
    if not (linux_folder() / "vmlinuz").exists():
        return f"there is no guest kernel in {linux_folder()}: `make test-pcie-linux` fetches one"
    return None


class Archive:
    """An initial file system in the kernel's ``newc`` format
    (``Documentation/driver-api/early-userspace/buffer-format.rst``)."""

    _TRAILER = "TRAILER!!!"

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._folders: set[str] = set()
        self._number = 0

    def _entry(self, name: str, mode: int, data: bytes, modified: int = 0) -> None:
        self._number += 1
        encoded = name.encode() + b"\0"
        fields = (self._number, mode, 0, 0, 1, modified, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._file.write(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))

    def add(self, name: str, data: bytes, *, executable: bool = False, modified: int = 0) -> None:
        """A file ``name``, an absolute path, and its folders."""
        inside = name.lstrip("/")
        for folder in reversed(list(Path(inside).parents)[:-1]):
            if str(folder) not in self._folders:
                self._folders.add(str(folder))
                self._entry(str(folder), 0o040755, b"")
        self._entry(inside, 0o100755 if executable else 0o100644, data, modified)

    def copy(self, path: Path, name: str | None = None) -> None:
        """The file ``path``, under its own name unless told, and with its date: by that Python knows a module's
        compiled form."""
        executable, modified = os.access(path, os.X_OK), int(path.stat().st_mtime)
        self.add(name or str(path), path.read_bytes(), executable=executable, modified=modified)

    def copy_tree(self, folder: Path, name: str | None = None, left_out: Iterable[str] = ()) -> None:
        """All files below ``folder``, but for static libraries and folders named in ``left_out``."""
        omitted = set(left_out)
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and path.suffix != ".a" and not omitted & set(relative.parts):
                self.copy(path, f"{name or folder}/{relative}")

    def close(self) -> None:
        """End the archive."""
        self._entry(self._TRAILER, 0, b"")
        self._file.close()


def _libraries(files: Iterable[Path]) -> set[Path]:
    """The shared libraries that ``files`` need, but those beside them."""
    found = set()
    listed = subprocess.run(["ldd", *map(str, files)], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        words = line.split()
        path = words[2] if len(words) > 2 and words[1] == "=>" else words[0] if words and words[0].startswith("/lib") else ""
        if path.startswith("/") and not path.endswith(":"):
            found.add(Path(path))
    return found


def python_files(archive: Archive) -> None:
    """This machine's Python, at its own path, with the packages that the driver needs, and the driver."""
    executable = Path(sys.executable).resolve()
    archive.copy(executable)
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    archive.copy_tree(library, left_out=_LEFT_OUT)
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (packages / name).is_dir():
            archive.copy_tree(packages / name, f"/guest/packages/{name}", left_out=_LEFT_OUT)
    archive.copy_tree(Path(cobs.__path__[0]), "/guest/packages/cobs")
    for metadata in Path(sysconfig.get_path("purelib")).glob("systola-*.dist-info"):
        archive.copy(metadata / "METADATA", f"/guest/packages/{metadata.name}/METADATA")
    for name in ("host", "firmware"):
        archive.copy_tree(_ROOT / name, f"/guest/{name}")
    archive.add("/guest/path", b"/guest/packages /guest/host /guest/firmware")
    native = [
        *(library / "lib-dynload").glob("*.so"),
        *(packages / "numpy").rglob("*.so"),
        *(packages / "numpy.libs").glob("*.so*"),
    ]
    for path in _libraries([executable, *native]):
        if "site-packages" not in path.parts and "dist-packages" not in path.parts:
            archive.copy(path)


def build(path: Path, files: dict[str, bytes] | None = None) -> None:
    """Write the initial file system: Python, the driver, the guest's scripts, ``files`` by name."""
    archive = Archive(path)
    init = (_HERE / "guest" / "init.py").read_text().replace("#!PYTHON", f"#!{Path(sys.executable).resolve()}")
    archive.add("/init", init.encode(), executable=True)
    python_files(archive)
    for script in (_HERE / "guest").glob("*.py"):
        archive.copy(script, f"/guest/{script.name}")
    modules = [name for name in _MODULES if (linux_folder() / f"{name}.ko").exists()]
    for name in modules:
        archive.copy(linux_folder() / f"{name}.ko", f"/modules/{name}.ko")
    archive.add("/modules/order", " ".join(f"{name}.ko" for name in modules).encode())
    for name, data in (files or {}).items():
        archive.add(name, data)
    archive.close()


def start(
    image: Path, script: str, words: str = "", devices: Sequence[str] = (), *, memory: int = 768, inherited: Sequence[int] = ()
) -> subprocess.Popen[str]:
    """Boot a guest that runs ``script`` and then ends; its console is the process' output.

    No acceleration by the processor is asked for: it is not there on every machine, and changes nothing here.
    """
    machine = f"q35,memory-backend=ram,kernel-irqchip={'split' if 'intel-iommu' in ' '.join(devices) else 'on'}"
    command = [QEMU, "-accel", "tcg", "-M", machine, "-cpu", "max", "-m", str(memory)]
    command += ["-object", f"memory-backend-memfd,id=ram,size={memory}M,share=on"]
    command += ["-nographic", "-monitor", "none", "-no-reboot", "-nic", "none"]
    command += ["-kernel", str(linux_folder() / "vmlinuz"), "-initrd", str(image)]
    command += ["-append", f"console=ttyS0 quiet panic=-1 rdinit=/init intel_iommu=on guest={script} {words}"]
    for device in devices:
        command += ["-device", device]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, pass_fds=tuple(inherited)
    )
