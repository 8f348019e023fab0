"""Builds shared libraries of Verilated boards and keeps them in a cache keyed by content.

A library is Verilog, compiled by Verilator with ``harness.cpp``; :class:`systola_sim.verilated.harness.Harness` loads
it. The cache folder is the user's (``platformdirs``) or the one that the environment variable ``SYSTOLA_CACHE`` names.
Processes that want the same library at once build it once: the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import platformdirs

from systola_firmware.spec.config import Config
from systola_sim.verilated.toolchain import Toolchain, find_toolchain

__all__ = ["STAGES", "BuildError", "Progress", "board_library", "build_library", "cache_folder", "lock"]

#: Called with the name of each stage of a build as it starts, one of :data:`STAGES`; not called for a library in the
#: cache.
Progress = Callable[[str], None]

#: Stages of a build, in order.
STAGES = ("generate Verilog", "Verilator", "compile")

#: The Verilog module of a board.
TOP = "systola"

_HARNESS = Path(__file__).with_name("harness.cpp")
_PREFIX = "Vsystola"
_LIBRARY = "libsystola.so"

#: Verilator's warnings that generated Verilog is allowed to raise, with the reason.
WAIVERS: dict[str, str] = {
    "ALWNEVER": "Yosys writes a process for a signal that is constant",
    "ASCRANGE": "Amaranth has signals of no bits, Yosys writes their range as [-1:0]",
    "CASEINCOMPLETE": "Yosys sets the value for all other cases before the case statement",
    "CMPCONST": "a comparison that one configuration always answers alike",
    "WIDTHEXPAND": "Yosys writes constants with as few bits as they need",
    "WIDTHTRUNC": "Yosys writes a test for zero as `!` of the whole vector",
}

_VERILATOR_FLAGS = (
    *("--cc", "--exe", "-O3", "--no-timing", "--no-assert"),
    *("--x-assign", "fast", "--x-initial", "fast"),  # every register and memory has an initial value
    *("--prefix", _PREFIX, "-o", _LIBRARY),
    *("-CFLAGS", "-fPIC -fvisibility=hidden -fno-gnu-unique"),  # several libraries in one process share nothing
    *("-LDFLAGS", "-shared -pthread"),
)
_MAKE_VARIABLES = ("OPT_FAST=-O3 -march=native", "OPT_GLOBAL=-O2", "OPT_SLOW=-O0")
_BRIEF_MAKE_VARIABLES = ("OPT_FAST=-O0", "OPT_GLOBAL=-O0", "OPT_SLOW=-O0")
_JOBS = 2

#: Seconds to wait for another process that builds the same library.
LOCK_TIMEOUT = 900.0
_LOCK_POLL = 0.2
_LOG_LINES = 25


class BuildError(RuntimeError):
    """Verilator, the compiler or the lock failed; the message ends with the last lines of the tool's output."""


def cache_folder() -> Path:
    """The folder of built libraries; it is made when something is built."""
    override = os.environ.get("SYSTOLA_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("systola"))


def _machine() -> str:
    """What ``-march=native`` depends on: a cache may be shared by machines of different processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _make_variables(*, brief: bool) -> list[str]:
    return list(_BRIEF_MAKE_VARIABLES if brief else _MAKE_VARIABLES)


def _key(toolchain: Toolchain, content: str, harness: Path, *, brief: bool) -> str:
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256()
    for part in (
        content,
        harness.read_text(),
        toolchain.version,
        compiler,
        _machine(),
        *_VERILATOR_FLAGS,
        *_make_variables(brief=brief),
        *WAIVERS,
    ):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


@contextlib.contextmanager
def lock(path: Path, timeout: float) -> Iterator[None]:
    """Hold ``path`` for this process alone; the system frees it even if the process is killed.

    Raises :class:`BuildError` if another process holds it for ``timeout`` seconds.
    """
    with path.open("w") as file:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BuildError(f"another process has held {path} for {timeout:.0f} s") from None
                time.sleep(_LOCK_POLL)
        yield


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
    result = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-_LOG_LINES:])
        raise BuildError(f"{Path(command[0]).name} failed with exit code {result.returncode}:\n{tail}")


def _compile(
    toolchain: Toolchain, verilog: str, top: str, library: Path, progress: Progress, *, harness: Path, brief: bool
) -> None:
    # Not in the cache folder itself: Verilator's makefile refuses a path with spaces, and a home folder may have one.
    with tempfile.TemporaryDirectory(prefix="systola-") as name:
        folder = Path(name)
        (folder / "board.v").write_text(verilog)
        shutil.copy(harness, folder / harness.name)
        environment = toolchain.full_environment()
        progress(STAGES[1])
        waivers = [f"-Wno-{warning}" for warning in WAIVERS]
        command = [str(toolchain.executable), *_VERILATOR_FLAGS, *waivers, "--top-module", top, "-Mdir", name]
        _run([*command, "board.v", harness.name], folder, environment)
        progress(STAGES[2])
        _run(["make", "-j", str(_JOBS), "-f", f"{_PREFIX}.mk", *_make_variables(brief=brief), _LIBRARY], folder, environment)
        partial = library.with_suffix(f".{os.getpid()}")
        shutil.copy(folder / _LIBRARY, partial)
        partial.replace(library)


def build_library(
    content: str,
    verilog: Callable[[], str],
    *,
    top: str = TOP,
    harness: Path = _HARNESS,
    progress: Progress | None = None,
    lock_timeout: float = LOCK_TIMEOUT,
    brief: bool = False,
) -> Path:
    """The shared library of a design, from the cache or built now.

    Parameters
    ----------
    content:
        A text that changes whenever the Verilog does: a digest of what it is generated from, or the Verilog itself.
    verilog:
        Generates the Verilog; called only when the library is not in the cache.
    top:
        Its top module, with the ports that ``harness`` wants.
    harness:
        C++ file that drives it, by default the one for a ``SimulationTop``.
    progress:
        Called with each stage as it starts.
    lock_timeout:
        Seconds to wait for another process that builds the same library.
    brief:
        The simulation will be short: compile quickly, without optimising, rather than run fast.

    Raises :class:`systola_sim.verilated.toolchain.ToolMissing` and :class:`BuildError`.
    """
    toolchain = find_toolchain()
    folder = cache_folder()
    library = folder / f"board-{_key(toolchain, content + top, harness, brief=brief)}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with lock(library.with_suffix(".lock"), lock_timeout):
        if not library.exists():  # another process may have built it meanwhile
            report = progress or (lambda _stage: None)
            report(STAGES[0])
            _compile(toolchain, verilog(), top, library, report, harness=harness, brief=brief)
    return library


def board_library(config: Config, progress: Progress | None = None) -> Path:
    """The shared library of the engine of ``config`` behind its link. Raises as :func:`build_library` does."""
    from systola_hdl.tops import verilog

    return build_library(verilog.content_key(config), lambda: verilog.generate(config), progress=progress)
