"""LLM Compressor's own lifecycle, where it is installed."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from workload import LETTERS

LEFT_OUT = "LLM Compressor is not installed, so it is left out"


def lifecycle() -> tuple[Any, tuple[Any, ...]] | None:
    """A `CompressionLifecycle` without modifiers, at its default log level, with its members for our letters.

    Returns:
        None where LLM Compressor cannot be imported.
    """
    # It logs to what is standard output when it is imported, and the table is to stand there alone.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            from llmcompressor.core.events import EventType
            from llmcompressor.core.lifecycle import CompressionLifecycle
        except ImportError:
            return None
        made = CompressionLifecycle()
        made.initialize()
    # Version 0.13 renamed two of them.
    renamed = {"CALIBRATION_EPOCH_START": "CALIBRATION_START", "CALIBRATION_EPOCH_END": "CALIBRATION_END"}
    known = EventType.__members__
    return made, tuple(known.get(letter.name) or known[renamed[letter.name]] for letter in LETTERS)
