"""Program files: round trip, and one sentence for every kind of damage."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.graphs.random_graphs import random_graph

from systola_firmware.compiler import compile_graph
from systola_firmware.errors import ModelFileError
from systola_firmware.spec import program_file
from systola_firmware.spec.presets import preset
from systola_firmware.spec.program import Program

CONFIG = preset("tiny-4x4")


@pytest.fixture(scope="module")
def program() -> Program:
    """A program with constants and a softmax."""
    for seed in range(100):
        result = compile_graph(random_graph(seed), CONFIG)
        if result.constants and result.softmax and len(result.layers) > 3:
            return result
    raise AssertionError("no seed gives constants and a softmax")


def rewritten(data: bytes, name: str, change: bytes | None) -> bytes:
    """The archive with one member changed, or left out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for entry in source.namelist():
            content = source.read(entry) if entry != name else change
            if content is not None:
                target.writestr(entry, content)
    return buffer.getvalue()


def manifest_of(data: bytes) -> dict[str, object]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return dict(json.loads(archive.read("manifest.json")))


def test_round_trip(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "model.systola"
    program_file.save(program, path)
    data = path.read_bytes()
    assert program_file.is_program(data)
    loaded = program_file.load(data)
    for field in dataclasses.fields(Program):
        mine, theirs = getattr(program, field.name), getattr(loaded, field.name)
        assert np.array_equal(mine, theirs) if field.name == "words" else mine == theirs, field.name
    assert loaded.words.dtype == np.uint32
    assert program_file.dump(loaded) == data


def test_every_truncation_is_refused(program: Program) -> None:
    data = program_file.dump(program)
    for size in {0, 3, 4, 30, len(data) // 3, len(data) // 2, len(data) - 30, len(data) - 1}:
        with pytest.raises(ModelFileError, match="damaged or cut short"):
            program_file.load(data[:size])


def test_flipped_bytes_are_refused_or_harmless(program: Program) -> None:
    data = program_file.dump(program)
    refused = 0
    for position in range(0, len(data), 97):
        bad = bytearray(data)
        bad[position] ^= 0x10
        try:
            loaded = program_file.load(bytes(bad))
        except ModelFileError:
            refused += 1
        else:  # a byte of the archive that carries nothing, such as a time
            assert program_file.dump(loaded) == data
    assert refused > len(data) // 97 // 2


def test_a_changed_member_does_not_match_the_hash(program: Program) -> None:
    data = program_file.dump(program)
    for name, change in (("words.bin", b"\0" * 8), ("weights.bin", None), ("constant-0.bin", b"")):
        with pytest.raises(ModelFileError, match="do not match their SHA-256"):
            program_file.load(rewritten(data, name, change))
    manifest = manifest_of(data) | {"preset": "another"}
    with pytest.raises(ModelFileError, match="do not match their SHA-256"):
        program_file.load(rewritten(data, "manifest.json", json.dumps(manifest).encode()))


def test_foreign_archives_and_versions_are_named(program: Program) -> None:
    data = program_file.dump(program)
    for change in (None, b"not json", b"[]", b'{"format": "something else"}'):
        with pytest.raises(ModelFileError, match="not a program file"):
            program_file.load(rewritten(data, "manifest.json", change))
    other = program_file.VERSION - 1
    manifest = manifest_of(data) | {"version": other}
    with pytest.raises(ModelFileError, match=f"version {other} where version {program_file.VERSION} is expected"):
        program_file.load(rewritten(data, "manifest.json", json.dumps(manifest).encode()))
    assert not program_file.is_program(b"\x1c\0\0\0TFL3")


def test_every_differing_field_is_named(program: Program) -> None:
    program_file.check_compatible(program, CONFIG.program_fields())
    fields = CONFIG.program_fields() | {"rows": 8, "weight_bytes": 4096}
    with pytest.raises(program_file.IncompatibleProgramError) as caught:
        program_file.check_compatible(program, fields)
    message = str(caught.value)
    assert "rows is 4 in the program and 8 on the device" in message
    assert "weight_bytes is 65536 in the program and 4096 on the device" in message
    assert "columns" not in message
