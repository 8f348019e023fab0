"""The guest's initial file system, made once in a run of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pcie.linux_guest import build, missing


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    path = tmp_path_factory.mktemp("guest") / "init.cpio"
    build(path)
    return path
