"""Whether the engine refuses an instruction with BAD_FIELD: because of its fields alone, before it does anything."""

from __future__ import annotations

from systola_firmware.spec.config import Config
from systola_firmware.spec.isa import Operation, violations

__all__ = ["breaks_a_rule"]


def breaks_a_rule(config: Config, operation: Operation) -> bool:
    """Whether ``config``'s engine refuses ``operation``: the rules stand at the fields in the instruction set.

    That a POST has more positions than there are accumulators is not such a rule: its drain stops when it gets there.
    """
    return next(violations(operation, config), None) is not None
