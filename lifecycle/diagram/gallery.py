"""A folder of diagrams of everything that is built in, and of the recorded runs that lie in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lifecycle import protocols
from lifecycle.diagram.model import picture
from lifecycle.diagram.renderers.dot import to_dot
from lifecycle.diagram.renderers.graphviz import to_svg
from lifecycle.diagram.renderers.mermaid import to_mermaid
from lifecycle.diagram.runs import overlay_of_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.diagram.model import Picture

__all__ = ["outdated", "write"]

RUNS = "runs"
"""The folder in it whose traces are drawn over the default protocol."""

INDEX = "README.md"

_OPENING = """\
# Diagrams

Drawn by `lifecycle draw --all`; `lifecycle draw --all --check` says whether they are what the code draws. The runs are
recorded ones, drawn over the protocol `{default}`.
"""


def write(folder: Path) -> list[str]:
    """Draw all of them, as DOT, Mermaid and SVG, with an index page.

    Args:
        folder: Where they go. Traces in its folder ``runs`` are drawn too.

    Returns:
        The names of the files.

    Raises:
        LifecycleError: No program was found that draws, or a trace is bad.
        OSError: A file cannot be read or written.
    """
    pictures = dict(_pictures(folder))
    files = _texts(pictures) | {f"{name}.svg": to_svg(drawn) for name, drawn in pictures.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return list(files)


def outdated(folder: Path) -> list[str]:
    """The files that differ from what the code draws, are missing, or show what is no longer there.

    The SVG files need only be there, since another version of Graphviz draws other ones. No program is needed.

    Args:
        folder: Where they are.

    Raises:
        LifecycleError: A trace is bad.
        OSError: A file cannot be read.
    """
    pictures = dict(_pictures(folder))
    texts = _texts(pictures)
    there = {path.name: path for path in folder.glob("*.*")}
    wanted = {*texts, *(f"{name}.svg" for name in pictures)}
    changed = [name for name in texts if name in there and there[name].read_bytes() != texts[name].encode()]
    return sorted({*changed, *(wanted ^ there.keys())})


def _pictures(folder: Path) -> Iterator[tuple[str, Picture]]:
    for name, protocol in protocols.BUILT_IN.items():
        yield name, picture(protocol)
    for trace in sorted((folder / RUNS).glob("*")):
        overlay = overlay_of_trace(trace, protocols.COMPRESSION)
        yield f"run-{trace.stem}", picture(protocols.COMPRESSION, replace(overlay, name=trace.name))


def _texts(pictures: dict[str, Picture]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for name, drawn in pictures.items():
        texts[f"{name}.dot"] = to_dot(drawn)
        texts[f"{name}.mmd"] = to_mermaid(drawn)
    texts[INDEX] = "\n".join([_OPENING.format(default=protocols.COMPRESSION.name), *map(_section, pictures)])
    return texts


def _section(name: str) -> str:
    return f"## {name}\n\n![{name}]({name}.svg)\n\n[DOT]({name}.dot), [Mermaid]({name}.mmd)\n"
