"""What the tests of traces share: traces from letters, damage, and what the checker says of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import sequences

from lifecycle import trace

DATA = Path(__file__).parent / "data"
CONTROLS = {"r": "RESET", "a": "ABORT", "(": "SUSPEND", ")": "RESUME", "?": "note"}
"""Letters for what is no event."""


def row(letter: str, **more: Any) -> dict[str, Any]:
    return {"event": CONTROLS.get(letter) or sequences.EVENT[letter].name, **more}


def lines(*rows: Any) -> io.BytesIO:
    """A trace of rows: dictionaries, or words of letters."""
    each = (one for part in rows for one in (map(row, part) if isinstance(part, str) else [part]))
    return io.BytesIO(b"".join(msgspec.json.encode(one) + b"\n" for one in each))


def check(*rows: Any, protocol: Any = "compression", **options: Any) -> trace.Report:
    return trace.check(lines(*rows), protocol, **options)


def only_run(*rows: Any, **options: Any) -> trace.Run:
    (run,) = check(*rows, **options).runs
    return run


def said(run: trace.Run) -> list[tuple[int, str]]:
    """The violations of a run: their lines and what they most likely were."""
    return [(violation.line, violation.cause) for violation in run.violations]


def word(events: Any) -> str:
    """The letters of some events."""
    return "".join(sequences.LETTER[event] for event in events)
