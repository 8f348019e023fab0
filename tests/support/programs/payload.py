"""An instruction as the full engine's units take it: all payload words at once."""

from __future__ import annotations

from systola_firmware.spec.isa import WORD_BITS, Operation

__all__ = ["payload_words"]


def payload_words(operation: Operation) -> int:
    """Payload words, the one behind the header in the low bits: ``words`` of an ``instruction_payload``."""
    return sum(word << WORD_BITS * index for index, word in enumerate(operation.encode()[1:]))
