"""A protocol as a table in Markdown: one row for each transition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lifecycle.diagram.text import visible

if TYPE_CHECKING:
    from lifecycle.diagram.overlay import Overlay
    from lifecycle.protocol import Protocol

__all__ = ["to_table"]

HEADINGS = ("State", "Event", "Guard", "Update", "Next state")

_PLAIN = re.compile(r"[A-Za-z0-9_.=+-](?:[A-Za-z0-9_.=+ -]*[A-Za-z0-9_.=+-])?")
"""What a code span shows as it is, also between the bars of a table."""

_SPECIAL = re.compile(r"[!-+\-./:-@\[-`{-~]")
"""What may mean something in Markdown or HTML."""


def to_table(protocol: Protocol, overlay: Overlay | None = None) -> str:
    """The transitions of a protocol as a Markdown table, states and events in the protocol's own order.

    Args:
        protocol: The protocol to show.
        overlay: A run; a column says how often and how long each transition was taken in it.

    Returns:
        The table, its columns aligned, ending in a newline. Whatever a name contains, it stays in its cell, and no
        Markdown or HTML in it takes effect.

    Examples:
        >>> from lifecycle import Protocol, Transition
        >>> door = Protocol(
        ...     "door",
        ...     states=["open", "shut"],
        ...     transitions=[Transition("open", "finalize", "shut")],
        ...     initial="open",
        ...     final=["shut"],
        ... )
        >>> print(to_table(door), end="")
        | State            | Event      | Guard              | Update | Next state |
        | ---------------- | ---------- | ------------------ | ------ | ---------- |
        | `open` (initial) | `FINALIZE` | counts as expected |        | `shut`     |
        | `shut` (final)   |            |                    |        |            |
    """
    counted = overlay is not None and overlay.tallies is not None
    rows: list[tuple[str, ...]] = [(*HEADINGS, *(["Taken"] if counted else []))]
    for state in protocol.states:
        role = " (initial)" * (state == protocol.initial) + " (final)" * (state in protocol.final)
        name = code(state) + role
        moves = [transition for transition in protocol.transitions if transition.source == state]
        rows += [
            (
                name,
                code(move.event.name),
                text(move.guard.name if move.guard else ""),
                code(move.update.text if move.update else ""),
                code(move.target),
                *([text(str(overlay.tally(state, move.event.name)))] if overlay and counted else []),
            )
            for move in moves
        ] or [(name, *[""] * (len(rows[0]) - 1))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def code(name: str) -> str:
    """A name in Markdown as code, whatever it contains."""
    if not name or _PLAIN.fullmatch(name):
        return f"`{name}`" if name else ""
    return f"<code>{text(name)}</code>"


def text(words: str) -> str:
    """Words in Markdown as they are: punctuation as character references."""
    return _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", visible(words))
