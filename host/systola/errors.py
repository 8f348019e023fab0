"""What the driver raises: one class for each kind of trouble, each message one sentence that a user can act on."""

from __future__ import annotations

__all__ = ["AddressError", "DeviceError", "InputError", "LinkError", "ProgramError", "SystolaError"]


class SystolaError(Exception):
    """Base of everything below: the command line prints it as one sentence, without a traceback."""


class LinkError(SystolaError):
    """The device cannot be reached, or no longer answers."""


class DeviceError(SystolaError):
    """The device answers, but not as it should: a foreign identity, another version, a program that stopped with an
    error."""


class AddressError(DeviceError):
    """The device has no memory at an address."""


class ProgramError(SystolaError):
    """A model or program file that this device cannot run."""


class InputError(SystolaError):
    """An input tensor of the wrong shape, type or name."""
