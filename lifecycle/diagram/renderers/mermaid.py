"""A picture as Mermaid, which GitHub and many documentation tools draw from text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lifecycle.diagram.palette import LIGHT
from lifecycle.diagram.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.diagram.model import Move, Picture
    from lifecycle.diagram.renderers.dot import Direction

__all__ = ["to_mermaid"]

INDENT = "    "

_SPECIAL = re.compile(r"[^\w +=]|^[ +]| $", re.ASCII)
"""What may mean something in Mermaid, or in the Markdown and HTML that its labels are read as."""

_BLANK = "#160;"

STYLES = {
    "final": (LIGHT.final, LIGHT.final_edge, "2px"),
    "current": (LIGHT.current, LIGHT.current_edge, "3px"),
    "rejected": (LIGHT.rejected, LIGHT.rejected_edge, "2px"),
}
"""Fill, edge and its width. Mermaid has one set of colours, so that the letters in these are always dark."""


def to_mermaid(drawn: Picture, *, direction: Direction = "TB") -> str:
    """A picture as a Mermaid state diagram, the same text for the same picture.

    Args:
        drawn: The picture.
        direction: Which way the usual path runs.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> print(to_mermaid(picture(protocols.TRAINING)).splitlines()[0])
        stateDiagram-v2
    """
    lines = ["stateDiagram-v2", f"accTitle: {_text(drawn.title)}", f"direction {direction}"]
    # Every state is declared inside its box before any arrow names it; one that an arrow names first escapes its box.
    lines += _declare(drawn, "")
    lines += [f"[*] --> {state.key}" for state in drawn.states if state.initial]
    # One line for all events between two states: of several loops at a state, Mermaid draws the last only.
    for arrow in drawn.arrows:
        lines.append(f"{arrow.source} --> {arrow.target} : {'<br/>'.join(map(_label, arrow.moves))}")
    lines += [f"{state.key} --> [*]" for state in drawn.states if state.final]
    lines += [f"{state.key} --> {key} : rejected" for state in drawn.states for key in drawn.rejections(state)]
    marked = {
        "final": [state.key for state in drawn.states if state.final and not state.current],
        "current": [state.key for state in drawn.states if state.current],
        "rejected": [key for state in drawn.states for key in drawn.rejections(state)],
    }
    for name, keys in marked.items():
        if keys:
            fill, edge, width = STYLES[name]
            lines.append(f"classDef {name} fill:{fill},stroke:{edge},stroke-width:{width},color:{LIGHT.ink}")
            lines.append(f"class {','.join(keys)} {name}")
    return "".join(f"{INDENT * (number > 0)}{line}\n" for number, line in enumerate(lines))


def _declare(drawn: Picture, box: str) -> Iterator[str]:
    """Declare what is in a box, or what is in none."""
    for state in drawn.states:
        if state.box == box:
            yield f'state "{_text(state.label)}" as {state.key}'
            for key, rejection in drawn.rejections(state).items():
                yield f'state "{_text(f"{rejection.event} {rejection.places()}")}" as {key}'
    for inner in drawn.boxes:
        if inner.parent == box:
            yield f'state "{_text(inner.label)}" as {inner.key} {{'
            yield from (INDENT + line for line in _declare(drawn, inner.key))
            yield "}"


def _label(move: Move) -> str:
    words = [_text(move.event)]
    if move.guard:
        words.append(f"[{_text(move.guard)}]")
    if move.update:
        words.append(f"/ {_text(move.update)}")
    if move.tally:
        words.append(f"({_text(str(move.tally))})")
    if move.failure:
        words.append(f"handler failed {_text(move.failure)}")
    return " ".join(words)


def _text(words: str) -> str:
    """Words as Mermaid shows them, whatever they contain."""
    return _SPECIAL.sub(lambda found: _BLANK if found[0] == " " else f"#{ord(found[0])};", visible(words)) or _BLANK
