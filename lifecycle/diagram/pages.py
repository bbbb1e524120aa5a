"""Diagrams and tables in pages of documentation, drawn from the protocol when the page is built."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from lifecycle.diagram.model import picture
from lifecycle.diagram.renderers.dot import DIRECTIONS
from lifecycle.diagram.renderers.graphviz import to_svg
from lifecycle.diagram.renderers.table import to_table
from lifecycle.diagram.runs import overlay_of_trace
from lifecycle.errors import LifecycleError
from lifecycle.lookup import find_protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.diagram.renderers.dot import Direction

__all__ = ["expand"]

_FENCE = re.compile(r"(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})[ ]*(?P<info>[^`]*)")

DARK_PAGE = '[data-md-color-scheme="slate"]'
"""What a page of mkdocs-material is in while its reader has it dark."""


def expand(markdown: str, folder: str | Path = ".") -> str:
    r"""A page with its directives replaced by what they ask for.

    A directive is an empty fenced block that names a protocol as the command line does, ``NAME`` or ``FILE.py:NAME``.
    ``lifecycle-table PROTOCOL`` becomes its table; ``lifecycle-diagram PROTOCOL`` becomes its picture, and takes
    ``direction=LR`` and ``trace=FILE``. Blocks inside other blocks stay as they are.

    Args:
        markdown: The text of the page.
        folder: Where the files are that the page names.

    Raises:
        LifecycleError: A directive is wrong; the message says on which line.

    Examples:
        >>> page = "# Order\n\n```lifecycle-table data_free\n```\n"
        >>> print(expand(page).splitlines()[4][:51])
        | `created` (initial)               | `INITIALIZE`
    """
    return "".join(_blocks(markdown.splitlines(keepends=True), folder))


def _blocks(lines: list[str], folder: str | Path) -> Iterator[str]:
    number = 0
    while number < len(lines):
        first = number
        number += 1
        opened = _FENCE.fullmatch(lines[first].rstrip())
        if not opened:
            yield lines[first]
            continue
        while number < len(lines) and not _closes(lines[number], opened["fence"]):
            number += 1
        body = lines[first + 1 : number]
        number += 1
        word, _, rest = opened["info"].partition(" ")
        if word not in _DIRECTIVES:
            yield from lines[first:number]
            continue
        try:
            shown = _DIRECTIVES[word](body, shlex.split(rest), folder)
        except (LifecycleError, OSError, ValueError) as error:
            raise LifecycleError(f"line {first + 1}, {opened['info']}: {error}") from error
        yield from (opened["indent"] + line for line in shown.splitlines(keepends=True))


def _closes(line: str, fence: str) -> bool:
    marks = line.strip()
    return len(marks) >= len(fence) and not marks.strip(fence[0])


def _table(body: list[str], words: list[str], folder: str | Path) -> str:
    protocol, _ = _asked(body, words, ())
    return to_table(find_protocol(protocol, folder))


def _diagram(body: list[str], words: list[str], folder: str | Path) -> str:
    protocol, options = _asked(body, words, ("direction", "trace"))
    asked = options.get("direction", "TB")
    direction: Direction | None = next((known for known in DIRECTIONS if known == asked), None)
    if direction is None:
        raise LifecycleError(f"direction must be TB or LR, got {asked!r}")
    shown = find_protocol(protocol, folder)
    overlay = overlay_of_trace(Path(folder, options["trace"]), shown) if "trace" in options else None
    drawn = picture(shown, overlay)
    made = to_svg(drawn, direction=direction, dark_within=DARK_PAGE)
    # One block of HTML to Markdown, which ends at an empty line.
    return f"<figure>{''.join(made.splitlines())}</figure>\n"


def _asked(body: list[str], words: list[str], known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The protocol and the options of a directive."""
    if any(line.strip() for line in body):
        raise LifecycleError("the block must be empty")
    names = [word for word in words if "=" not in word]
    if len(names) != 1:
        raise LifecycleError(f"name one protocol, got {names}")
    options = dict(word.split("=", 1) for word in words if "=" in word)
    unknown = [name for name in options if name not in known]
    if unknown:
        raise LifecycleError(f"{unknown[0]!r} is not an option; known: {', '.join(known) or 'none'}")
    return names[0], options


_DIRECTIVES = {"lifecycle-diagram": _diagram, "lifecycle-table": _table}
