"""What several of these tests need: stand-ins for the tools, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.tools.fpga_tools import install


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tools that is searched, and no other but the system's; stand-ins for those of the ECP5 in it."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("SYSTOLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    install(folder)
    return folder
