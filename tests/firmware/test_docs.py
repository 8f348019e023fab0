"""The generated pages: up to date in the repository, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from systola_firmware.docs import PAGES, main
from systola_firmware.spec import isa, link, memory_map

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    assert main(["--check", "--output", str(DOCS)]) == 0


def test_check_finds_pages_that_differ_or_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--output", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
    assert main(["--output", str(tmp_path)]) == 0
    assert main(["--check", "--output", str(tmp_path)]) == 0
    capsys.readouterr()
    (tmp_path / "link.md").write_text("something else", encoding="utf-8")
    assert main(["--check", "--output", str(tmp_path)]) == 1
    assert "link.md" in capsys.readouterr().err


def test_nothing_is_left_out() -> None:
    isa_page, registers, frames = (PAGES[name]() for name in ("isa.md", "registers.md", "link.md"))
    for definition in isa.INSTRUCTIONS.values():
        assert definition.doc in isa_page
        for name, field in definition.fields.items():
            assert f"| `{name}` |" in isa_page
            assert field.doc in isa_page
    for enumeration in (isa.Unit, isa.Rounding, isa.Combine, isa.ErrorCode):
        assert all(f"| `{name}` | {int(member)} |" in isa_page for name, member in enumeration.__members__.items())
    assert "an activation address outside the memory" in isa_page
    for register in memory_map.REGISTERS.values():
        assert f"| `{memory_map.register_address(register.name):#06x}` | `{register.name}` |" in registers
    assert all(
        name in registers for name in (*memory_map.Region.__members__, *memory_map.Control.__members__, *memory_map.COUNTERS)
    )
    assert all(f"| `{name}` | {int(member)} |" in frames for name, member in link.LinkStatus.__members__.items())


def test_example_frames() -> None:
    """The request by hand: COBS of 07 01 01 00 | 00 00 00 00 | crc, with the CRC of ``zlib`` from elsewhere."""
    page = PAGES["link.md"]()
    assert "    frame        07 01 01 00 00 00 00 00 " in page
    assert "    on the line  04 07 01 01 01 01 01 01 " in page
    assert b"SYST".hex(" ") in page
