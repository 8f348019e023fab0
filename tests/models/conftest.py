"""Devices for whole models: opened once in a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import systola


@pytest.fixture(scope="session")
def golden() -> Iterator[systola.Device]:
    with systola.open("golden:ulx3s-85f") as device:
        yield device


@pytest.fixture(scope="session")
def simulated() -> Iterator[systola.Device]:
    with systola.open("sim:ulx3s-85f") as device:
        yield device
