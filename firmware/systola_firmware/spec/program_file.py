"""Compiled programs as files: ``.systola``, a zip archive.

``manifest.json`` holds everything but the long byte strings, which are members of their own: ``words.bin``
(little-endian uint32), ``weights.bin``, ``constant-N.bin`` and, with the initial state of a recurrent layer,
``state-N.bin``. The manifest has the format's version and a SHA-256 over itself (without that entry) and all other
members, so that a damaged file is refused rather than run. The same program always gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from systola_firmware.errors import CompileError, ModelFileError
from systola_firmware.spec.program import Binding, LayerRecord, Manifest, Placement, Program, SoftmaxStep, State

#: Version of the file's format.
VERSION = 3
_FORMAT = "systola program"
_MAGIC = b"PK\x03\x04"  # a zip archive's first local header
_MANIFEST = "manifest.json"
_WORDS = "words.bin"
_WEIGHTS = "weights.bin"
#: No archive member has a reason to be larger; a bad file must not exhaust the host's memory.
_MEMBER_LIMIT = 1 << 28


class IncompatibleProgramError(CompileError):
    """A program for another configuration. The message names every field that differs."""


def is_program(data: bytes) -> bool:
    """Whether ``data`` begins as a program file does (it may still be damaged)."""
    return data.startswith(_MAGIC)


def _json(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, indent=1, default=lambda value: value.item()).encode()


def _digest(manifest: Mapping[str, Any], members: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(_json({key: value for key, value in manifest.items() if key != "sha256"}))
    for name in sorted(members):
        digest.update(f"\n{name} {len(members[name])}\n".encode())
        digest.update(members[name])
    return digest.hexdigest()


def _constant_name(index: int) -> str:
    return f"constant-{index}.bin"


def _state_name(index: int) -> str:
    return f"state-{index}.bin"


def dump(program: Program) -> bytes:
    """The file's bytes."""
    members = {_WORDS: np.asarray(program.words, "<u4").tobytes(), _WEIGHTS: program.weights}
    members |= {_constant_name(index): data for index, (_, data) in enumerate(program.constants)}
    members |= {_state_name(index): state.initial for index, state in enumerate(program.states)}
    manifest: Manifest = {
        "format": _FORMAT,
        "version": VERSION,
        "model": program.model,
        "preset": program.preset,
        "configuration": dict(program.configuration),
        "inputs": [dataclasses.asdict(binding) for binding in program.inputs],
        "outputs": [dataclasses.asdict(binding) for binding in program.outputs],
        "layers": [dataclasses.asdict(record) for record in program.layers],
        "constants": [address for address, _ in program.constants],
        "softmax": [dataclasses.asdict(step) for step in program.softmax],
        "activation_bytes_used": program.activation_bytes_used,
        "notes": list(program.notes),
        "states": [{**vars(state), "initial": _state_name(index)} for index, state in enumerate(program.states)],
        "stateful": program.stateful,
        "batch": program.batch,
    }
    manifest = json.loads(_json(manifest))  # tuples become lists: what a reader will see, and hash
    manifest["sha256"] = _digest(manifest, members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {_MANIFEST: _json(manifest), **members}.items():
            # The oldest time that a zip can hold, so that equal programs are equal files.
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return buffer.getvalue()


def save(program: Program, path: str | Path) -> None:
    """Write a program file. Raises ``OSError``."""
    Path(path).write_bytes(dump(program))


def _members(data: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.file_size > _MEMBER_LIMIT for entry in archive.infolist()):
                raise ModelFileError("this is not a program file: a member of the archive is far too large")
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    # zipfile reports damage in all these ways, zlib.error among them as a plain Exception subclass.
    except ModelFileError:
        raise
    except Exception as error:
        raise ModelFileError(f"the program file is damaged or cut short ({error})") from error


def _binding(entry: Mapping[str, Any]) -> Binding:
    placement = dict(entry["placement"])
    placement["shape"] = tuple(placement["shape"])
    return Binding(**{**entry, "shape": tuple(entry["shape"]), "placement": Placement(**placement)})


def _layer(entry: Mapping[str, Any]) -> LayerRecord:
    return LayerRecord(**{**entry, "output": _binding(entry["output"]), "operators": tuple(entry["operators"])})


def _state(entry: Mapping[str, Any], members: Mapping[str, bytes]) -> State:
    return State(**{**entry, "initial": members[entry["initial"]], "shape": tuple(entry["shape"])})


def load(data: bytes) -> Program:
    """The program in a file's bytes. Raises :class:`ModelFileError`, one sentence, for a truncated, damaged or foreign
    file."""
    members = _members(data)
    try:
        manifest = json.loads(members.pop(_MANIFEST))
        foreign = manifest["format"] != _FORMAT
    except (KeyError, TypeError, ValueError):
        foreign = True
    if foreign:
        raise ModelFileError("this is a zip archive but not a program file")
    if manifest.get("version") != VERSION:
        raise ModelFileError(
            f"the program file has version {manifest.get('version')} where version {VERSION} is expected: compile the model again"
        )
    if manifest.get("sha256") != _digest(manifest, members):
        raise ModelFileError("the program file is damaged: its contents do not match their SHA-256")
    try:
        return Program(
            model=manifest["model"],
            preset=manifest["preset"],
            configuration=manifest["configuration"],
            words=np.frombuffer(members[_WORDS], "<u4").astype(np.uint32),
            weights=members[_WEIGHTS],
            inputs=tuple(_binding(entry) for entry in manifest["inputs"]),
            outputs=tuple(_binding(entry) for entry in manifest["outputs"]),
            layers=tuple(_layer(entry) for entry in manifest["layers"]),
            constants=tuple((address, members[_constant_name(i)]) for i, address in enumerate(manifest["constants"])),
            softmax=tuple(SoftmaxStep(**entry) for entry in manifest["softmax"]),
            activation_bytes_used=manifest["activation_bytes_used"],
            notes=tuple(manifest["notes"]),
            states=tuple(_state(entry, members) for entry in manifest["states"]),
            stateful=manifest["stateful"],
            batch=manifest["batch"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the program file's manifest is not what this version writes ({error!r})") from error


def check_compatible(program: Program, fields: Mapping[str, int]) -> None:
    """Raise :class:`IncompatibleProgramError` unless the program was compiled for a device with ``fields``.

    ``fields`` are ``Config.program_fields()``, or what a device's registers say. Every field that differs is named with
    both values.
    """
    differing = [
        f"{field} is {program.configuration.get(field, 'not given')} in the program and {value} on the device"
        for field, value in fields.items()
        if program.configuration.get(field) != value
    ]
    if differing:
        raise IncompatibleProgramError(
            f"the program was compiled for another configuration ({program.preset}): {', '.join(differing)}"
        )
