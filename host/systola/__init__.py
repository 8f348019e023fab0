"""Systola: run int8 ``.tflite`` models on an FPGA board, or on its simulation, bit-exactly.

import systola
answer = systola.open("sim:ulx3s-85f").load("model.tflite").run(x)
"""

from __future__ import annotations

from importlib.metadata import version as _version

from systola.connect import open_device as open
from systola.device import Device
from systola.errors import AddressError, DeviceError, InputError, LinkError, ProgramError, SystolaError
from systola.session import LayerProfile, Session

__all__ = [
    "AddressError",
    "Device",
    "DeviceError",
    "InputError",
    "LayerProfile",
    "LinkError",
    "ProgramError",
    "Session",
    "SystolaError",
    "__version__",
    "open",
]

__version__ = _version("systola")
