"""The generated pages: up to date in the repository, and complete."""

from __future__ import annotations

from pathlib import Path

from systola_firmware.docs import PAGES, write_pages
from systola_firmware.operators.registry import IMPORTERS
from systola_firmware.spec import isa, link, memory_map

ROOT = Path(__file__).resolve().parents[2]


def test_the_pages_in_the_repository_are_up_to_date() -> None:
    assert write_pages(ROOT, check=True) == []


def test_check_finds_pages_that_differ_or_are_missing(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    readme = tmp_path / "README.md"
    readme.write_text("Before.\n<!-- begin: operators, generated -->\n<!-- end -->\nAfter.\n", encoding="utf-8")
    assert len(write_pages(tmp_path, check=True)) == len(PAGES) + 1
    assert not list((tmp_path / "docs").iterdir())
    assert len(write_pages(tmp_path)) == len(PAGES) + 1
    assert write_pages(tmp_path, check=True) == []
    assert "generated -->\n\nA" in readme.read_text(encoding="utf-8")
    (tmp_path / "docs" / "link.md").write_text("something else", encoding="utf-8")
    assert write_pages(tmp_path, check=True) == [str(tmp_path / "docs" / "link.md")]


def test_every_operator_has_a_row() -> None:
    page = PAGES["operators.md"]()
    for name in IMPORTERS:
        assert page.count(f"| `{name}` | ") == 1


def test_nothing_is_left_out() -> None:
    isa_page, registers, frames = (PAGES[name]() for name in ("isa.md", "registers.md", "link.md"))
    for definition in isa.INSTRUCTIONS.values():
        assert definition.doc in isa_page
        for name, field in definition.fields.items():
            assert f"| `{name}` |" in isa_page
            assert field.doc in isa_page
    for enumeration in (isa.Unit, isa.Rounding, isa.Combine, isa.ErrorCode):
        assert all(f"| `{name}` | {int(member)} |" in isa_page for name, member in enumeration.__members__.items())
    assert "an address outside the activation memory" in isa_page
    assert "| `last_columns` |  | 1 to COLUMNS |" in isa_page
    assert "| `shift` | signed | -31 to 6 if `per_channel` is 0 |" in isa_page
    assert "`t0_count * t1_count` is at most 1 if `sources` is 0 or 2." in isa_page
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
