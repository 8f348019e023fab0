"""From what a user calls a model to a program: compiled here, or compiled before and stored in a ``.systola`` file."""

from __future__ import annotations

__all__ = ["load_program", "read_model_file"]
