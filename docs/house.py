"""Draws the floors of the house, from the contract that `lint-imports` checks: ``python docs/house.py``."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import graphviz
import msgspec

from lifecycle.diagram.palette import LIGHT
from lifecycle.diagram.renderers.graphviz import find_program

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lifecycle"
PICTURE = ROOT / "docs" / "house.svg"


def floors() -> list[list[str]]:
    """The rooms of each floor, the top floor first."""
    tools = msgspec.toml.decode((ROOT / "pyproject.toml").read_bytes())["tool"]
    (layers,) = (each for each in tools["importlinter"]["contracts"] if each["type"] == "layers")
    # `python -m lifecycle` is a door and no room.
    return [floor.split(" | ") for floor in layers["layers"] if floor != "__main__"]


def imports() -> dict[str, set[str]]:
    """For each room, the rooms that its modules import."""
    rooms = {room for floor in floors() for room in floor}
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room in rooms:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.module:
                    paths = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                    found[room].update(part[1] for each in paths if len(part := each.split(".")) > 1)
    return {room: (others & rooms) - {room} for room, others in found.items()}


def below(room: str, uses: dict[str, set[str]]) -> set[str]:
    """All rooms that a room stands on."""
    return uses[room].union(*(below(other, uses) for other in uses[room]))


def to_dot() -> str:
    """The picture as DOT: an arrow for each import that no other one implies."""
    uses = imports()
    graph = graphviz.Digraph("house")
    graph.attr(rankdir="TB", bgcolor=LIGHT.paper, nodesep="0.5", ranksep="0.3", fontname="Helvetica")
    graph.attr(
        "node",
        shape="box",
        style="rounded,filled",
        fontname="Helvetica",
        fontsize="12",
        fillcolor=LIGHT.box_1,
        color=LIGHT.box_1_edge,
        fontcolor=LIGHT.ink,
        margin="0.2,0.08",
    )
    graph.attr("edge", color=LIGHT.muted, arrowsize="0.6")
    previous = ""
    for floor in floors():
        with graph.subgraph() as row:
            row.attr(rank="same")
            for room in floor:
                row.node(room, room + ("/" if (PACKAGE / room).is_dir() else ".py"))
        if previous:
            # So that every floor stands below the one before, whoever imports what.
            graph.edge(previous, floor[0], style="invis")
        previous = floor[0]
    for floor in floors():
        for room in floor:
            implied: set[str] = set().union(*(below(other, uses) for other in uses[room]))
            for other in sorted(uses[room] - implied):
                graph.edge(room, other)
    return graph.source


def main() -> None:
    """Write the picture, and the text that tells whether it is up to date."""
    text = to_dot()
    PICTURE.with_suffix(".dot").write_text(text, encoding="utf-8", newline="\n")
    source = graphviz.Source(text, format="svg")
    sys.stdout.write(f"drawn by {find_program()}\n")
    PICTURE.write_bytes(source.pipe())


if __name__ == "__main__":
    main()
