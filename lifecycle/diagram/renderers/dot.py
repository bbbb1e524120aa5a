"""A picture as DOT, the language of Graphviz.

Events are small text nodes, since the labels of edges would make `dot` push the usual path out of its boxes. Arrows
that go back are written from target to source, so that `dot` keeps the usual path straight down. All names are
written as labels; the names of DOT's own nodes are made up here, so that nothing in a protocol can be taken for DOT.
"""

from __future__ import annotations

from collections import Counter
from html import escape
from math import log10
from textwrap import shorten, wrap
from typing import TYPE_CHECKING, Any, Literal, get_args

import graphviz  # type: ignore[import-untyped] # it ships no types

from lifecycle.diagram.palette import PALETTES, Palette, Theme
from lifecycle.diagram.text import visible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.diagram.model import Arrow, Box, Move, Picture, State
    from lifecycle.diagram.overlay import Rejection

__all__ = ["DIRECTIONS", "Direction", "to_dot"]

Direction = Literal["TB", "LR"]
"""Whether the usual path runs from top to bottom or from left to right."""

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

_graphviz: Any = graphviz

FONT = "Helvetica"
MAIN_WEIGHT = "100"
"""How strongly the usual path is kept straight."""

STATE_WIDTH = 0.95
WIDTH_PER_ARROW = 0.4
MOST_STATE_WIDTH = 3.0
"""Widths of states in inches: at least, for each arrow beyond four, and at most unless its name is wider."""

LANE = {"TB": 34, "LR": 14}
"""Points between two arrows that have their places at a state."""

LEAST_WIDTH = 1.2
WIDTH_PER_DIGIT = 0.8
MOST_WIDTH = 6.0
"""Line widths in points: of what came once, for each factor of ten, and of what came too often to matter."""

SUBTITLE_WIDTH = 120
FAILURE_WIDTH = 48
"""Characters in a line."""

LEGEND_COLUMNS = 3

GAP = 3
"""Points between the text of an event and its lines."""

MARGIN = 12
TITLE_LETTER = 7
CLEAR = 20
"""Points around what is in a box; of a letter of its title, at most; and of a title that fits beside any path."""


def to_dot(drawn: Picture, *, theme: Theme = "auto", direction: Direction = "TB") -> str:
    """A picture as DOT, the same text for the same picture.

    Args:
        drawn: The picture.
        theme: The colours. DOT has no reader's setting to follow, so that ``auto`` is light.
        direction: Which way the usual path runs.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> to_dot(picture(protocols.TRAINING)).splitlines()[0]
        'digraph lifecycle {'
    """
    return _Drawing(drawn, PALETTES[theme], direction).source()


class _Drawing:
    def __init__(self, drawn: Picture, palette: Palette, direction: Direction) -> None:
        self.drawn = drawn
        self.palette = palette
        # A state that is the hub of many arrows is wide, so that they reach it from above and below.
        self.ends = Counter(key for arrow in drawn.arrows for key in {arrow.source, arrow.target})
        self.direction: Direction = direction
        self.lanes: dict[str, list[int]] = {}
        for arrow in drawn.arrows:
            if arrow.lane is not None:
                self.lanes.setdefault(arrow.upper, []).append(arrow.lane)
        self.levels = {box.key: box.level for box in drawn.boxes}
        # Graphviz fails on lines that are to be straight and in and out of a box in turns.
        chains = {state.key: {"group": f"c{state.chain}"} for state in drawn.states}
        self.chains = {key: {} if drawn.tangled else chain for key, chain in chains.items()}
        # What most states look like, and all events, is said once; quoting it for each takes a good part of the time.
        self.plain = {
            "fillcolor": palette.state,
            "color": palette.state_edge,
            "penwidth": "1.2",
            "width": f"{STATE_WIDTH:.2f}",
        }
        self.graph: Any = _graphviz.Digraph(
            "lifecycle",
            graph_attr={
                "rankdir": direction,
                "newrank": "true",
                "nodesep": "0.45",
                "ranksep": "0.25",
                "pad": "0.2",
                "bgcolor": palette.paper,
                "fontname": FONT,
                "labelloc": "b",
                "labeljust": "l",
                "label": legend(drawn, palette),
            },
            node_attr={
                "fontname": FONT,
                "fontsize": "12",
                "fontcolor": palette.ink,
                "shape": "plain",
                "style": "solid",
                "height": "0.36",
                "margin": "0.14,0.06",
                **self.plain,
            },
            edge_attr={"color": palette.line, "arrowsize": "0.7"},
        )

    def source(self) -> str:
        # A box around everything, since a graph has one label, and that is the legend.
        title = {"label": self.title(), "labelloc": "t", "labeljust": "l", "peripheries": "0", "class": "whole"}
        with self.graph.subgraph(name="cluster_whole", graph_attr=title) as whole:
            self.fill(whole, "")
        for state in self.drawn.states:
            if state.initial:
                self.graph.edge("start", state.key, weight=MAIN_WEIGHT, **{"class": "start"})
        for arrow in self.drawn.arrows:
            self.draw_arrow(arrow)
        for state in self.drawn.states:
            for key in self.drawn.rejections(state):
                color = self.palette.rejected_edge
                self.graph.edge(state.key, key, color=color, penwidth="1.8", **{"class": "rejected"})
        return str(self.graph.source)

    def title(self) -> str:
        lines = [line for words in self.drawn.subtitles for line in wrap(visible(words), SUBTITLE_WIDTH)]
        rows = [(self.drawn.title, "16", self.palette.ink), *((line, "10", self.palette.muted) for line in lines)]
        cells = "".join(
            f'<tr><td align="left">{_font(words, size, color, bold=size == "16")}</td></tr>'
            for words, size, color in rows
        )
        return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="2">{cells}</table>>'

    def fill(self, graph: Any, box: str) -> None:
        """Draw what is in a box, or what is in none."""
        for state in self.drawn.states:
            if state.box == box:
                self.draw_state(graph, state)
        for arrow in self.drawn.arrows:
            if arrow.box == box:
                self.draw_event(graph, arrow)
        for inner in self.drawn.boxes:
            if inner.parent == box:
                with graph.subgraph(name=f"cluster_{inner.key}", graph_attr=self.box_style(inner)) as below:
                    self.fill(below, inner.key)

    def box_style(self, box: Box) -> dict[str, str]:
        fill, edge = self.palette.box(box.level)
        # Where the usual path leaves downwards, the title ends before it does.
        margin = max(MARGIN, TITLE_LETTER * len(box.label) - CLEAR) if box.left_below else MARGIN
        return {
            "label": f"<<b>{_html(box.label)}</b>>",
            # Below, since arrows enter from above, and leave upwards or to the side but for a few.
            "labelloc": "b",
            "labeljust": "l",
            "fontsize": "11",
            "fontcolor": self.palette.ink,
            "style": "rounded,filled",
            "fillcolor": fill,
            "color": edge,
            "peripheries": "1",
            "margin": str(margin),
            "class": f"box level-{box.level}",
        }

    def draw_state(self, graph: Any, state: State) -> None:
        palette = self.palette
        look = {**self.plain, **self.size(state)}
        if state.final:
            look |= {"fillcolor": palette.final, "color": palette.final_edge}
        if state.current:
            look |= {"fillcolor": palette.current, "color": palette.current_edge, "penwidth": "2.4"}
        if not state.visited:
            look["color"] = palette.never
        marks = {"initial": state.initial, "final": state.final, "current": state.current, "never": not state.visited}
        graph.node(
            state.key,
            self.name(state),
            **{name: value for name, value in look.items() if self.plain.get(name) != value},
            **self.chains[state.key],
            shape="box",
            style="rounded,filled" if state.visited else "rounded,filled,dashed",
            **({"peripheries": "2"} if state.final else {}),
            **{"class": " ".join(["state", *(mark for mark, has in marks.items() if has)])},
        )
        if state.initial:
            self.draw_start(graph, state)
        for key, rejection in self.drawn.rejections(state).items():
            self.draw_rejection(graph, key, rejection)

    def size(self, state: State) -> dict[str, str]:
        if state.key in self.lanes:
            return {"margin": "0"}
        wider = WIDTH_PER_ARROW * max(0, self.ends[state.key] - 4)
        return {"width": f"{min(STATE_WIDTH + wider, MOST_STATE_WIDTH):.2f}"}

    def name(self, state: State) -> str:
        """The label of a state: its name, and where arrows have their places, a row of cells for them to end at."""
        name = _html(state.label)
        if state.key not in self.lanes:
            return f"<{name}>"
        most = self.most_lanes(state.key)
        count, size = 2 * most + 1, LANE[self.direction]
        if self.direction == "TB":
            cells = "".join(f'<td port="p{lane}" width="{size}" height="0"></td>' for lane in range(count))
            rows = f'<tr><td colspan="{count}" height="25" cellpadding="4">{name}</td></tr><tr>{cells}</tr>'
        else:
            # What is left in a picture from top to bottom is below in one from left to right.
            first, *rest = (f'<td port="p{lane}" width="0" height="{size}"></td>' for lane in reversed(range(count)))
            rows = f'<tr><td rowspan="{count}" width="66" cellpadding="4">{name}</td>{first}</tr>'
            rows += "".join(f"<tr>{cell}</tr>" for cell in rest)
        return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0">{rows}</table>>'

    def most_lanes(self, state: str) -> int:
        """How many cells there are on each side of the usual path; the outermost arrow on the left needs none."""
        return max(*self.lanes[state], -1 - min(self.lanes[state]))

    def upper_end(self, arrow: Arrow) -> str:
        """Where an arrow meets the state that is drawn above the other."""
        if arrow.lane is None:
            return arrow.upper
        below, left = ("s", "w") if self.direction == "TB" else ("e", "s")
        if arrow.lane == min(self.lanes[arrow.upper]) < 0:
            return f"{arrow.upper}:{left}"
        return f"{arrow.upper}:p{self.most_lanes(arrow.upper) + arrow.lane}:{below}"

    def draw_start(self, graph: Any, state: State) -> None:
        ink = self.palette.ink
        dot = {"shape": "circle", "style": "filled", "fillcolor": ink, "color": ink}
        graph.node(
            "start",
            "",
            **dot,
            width="0.17",
            height="0.17",
            fixedsize="true",
            **self.chains[state.key],
            **{"class": "start"},
        )

    def draw_rejection(self, graph: Any, key: str, rejection: Rejection) -> None:
        edge = self.palette.rejected_edge
        graph.node(
            key,
            f"<{_font(rejection.event, '10', edge, bold=True)}<br/>{_font(rejection.places(), '9', edge)}>",
            shape="octagon",
            style="filled",
            fillcolor=self.palette.rejected,
            penwidth="1.4",
            margin="0.03",
            height="0.3",
            color=edge,
            **{"class": "rejected"},
        )

    def draw_event(self, graph: Any, arrow: Arrow) -> None:
        rows = "".join(f"<tr><td>{line}</td></tr>" for move in arrow.moves for line in self.words(move))
        lines = f'<table border="0" cellborder="0" cellspacing="1" cellpadding="0">{rows}</table>'
        # The ground it stands on, so that a finished SVG says where the middle of the text is.
        paper = self.palette.box(self.levels[arrow.box])[0] if arrow.box else self.palette.paper
        graph.node(
            arrow.key,
            f'<<table border="0" cellspacing="0" cellpadding="{GAP}" bgcolor="{paper}">'
            f"<tr><td>{lines}</td></tr></table>>",
            **(self.chains[arrow.target] if arrow.kind in ("main", "side") else {}),
            **{"class": "event"},
        )

    def words(self, move: Move) -> list[str]:
        palette = self.palette
        tally = move.tally
        lines = [_font(move.event, "10", palette.ink if tally is None or tally.count else palette.muted)]
        if move.guard:
            lines.append(_font(f"[{move.guard}]", "8.5", palette.muted))
        if move.update:
            lines.append(_font(f"/ {move.update}", "8.5", palette.muted))
        if tally and tally.count:
            lines.append(_font(str(tally), "9", palette.count, bold=True))
        if move.failure:
            lines.append(
                _font(
                    shorten(f"handler failed: {move.failure}", FAILURE_WIDTH, placeholder="..."),
                    "9",
                    palette.rejected_edge,
                    bold=True,
                )
            )
        return lines

    def draw_arrow(self, arrow: Arrow) -> None:
        style = self.line(arrow)
        edge = self.graph.edge
        if arrow.kind == "loop":
            self.graph.body.append(f"\t{{ rank=same; {arrow.source}; {arrow.key} }}\n")
            # Both written one way, so that the text is always on the same side: on that where fewer ways back are.
            ends = [arrow.source, arrow.key] if self.direction == "TB" else [arrow.key, arrow.source]
            edge(*ends, dir="none", weight="10", **style)
            edge(*ends, dir="back" if self.direction == "TB" else "forward", **style)
        elif arrow.kind == "back":
            edge(self.upper_end(arrow), arrow.key, dir="back", **style)
            edge(arrow.key, arrow.source, dir="none", weight="3", **style)
        else:
            heavy = {"weight": MAIN_WEIGHT} if arrow.kind == "main" else {}
            long = {"minlen": str(1 + 2 * arrow.span)} if arrow.span else {}
            edge(self.upper_end(arrow), arrow.key, dir="none", **heavy, **long, **style)
            edge(arrow.key, arrow.target, **{"weight": "2", **heavy}, **style)

    def line(self, arrow: Arrow) -> dict[str, str]:
        """How the line of an arrow looks: the wider, the more often it was taken."""
        if self.drawn.overlay is None or self.drawn.overlay.tallies is None:
            return {"class": arrow.kind}
        count = sum(move.tally.count for move in arrow.moves if move.tally)
        if not count:
            return {"class": f"{arrow.kind} never", "color": self.palette.never, "style": "dashed"}
        return {
            "class": f"{arrow.kind} taken",
            "color": self.palette.taken,
            "penwidth": f"{min(LEAST_WIDTH + WIDTH_PER_DIGIT * log10(count), MOST_WIDTH):.2f}",
        }


def legend(drawn: Picture, palette: Palette) -> str:
    """What the marks mean that a picture has, as a label."""
    entries = list(_entries(drawn, palette))
    rows = [entries[first : first + LEGEND_COLUMNS] for first in range(0, len(entries), LEGEND_COLUMNS)]
    cells = "".join(
        "<tr>"
        + '<td width="12"></td>'.join(
            f'<td>{mark}</td><td align="left">{_font(words, "9", palette.muted)}</td>' for mark, words in row
        )
        + "</tr>"
        for row in rows
    )
    return f'<<table border="0" cellborder="0" cellspacing="4" cellpadding="1">{cells}</table>>'


def _entries(drawn: Picture, palette: Palette) -> Iterator[tuple[str, str]]:
    moves = [move for arrow in drawn.arrows for move in arrow.moves]
    yield _font("\u25cf", "18", palette.ink), "a run begins"
    yield (
        _patch(palette.final, palette.final_edge, _patch(palette.final, palette.final_edge), width=28, height=18),
        "a run is complete",
    )
    if drawn.boxes:
        yield _patch(*palette.box(1)), "group of states"
    if any(move.guard for move in moves):
        yield _font("[guard]", "9", palette.muted), "what must hold"
    if any(move.update for move in moves):
        yield _font("/ update", "9", palette.muted), "what is counted"
    if drawn.overlay is None:
        return
    tallies = [move.tally for move in moves if move.tally]
    if any(tally.count for tally in tallies):
        timed = any(tally.seconds for tally in tallies)
        mark = "3x 6 s, 2 s each" if timed else "3x"
        words = (
            "how often (as the line is wide), how long its handlers took" if timed else "how often, as the line is wide"
        )
        yield _font(mark, "9", palette.count, bold=True), words
    if not all(tally.count for tally in tallies) or not all(state.visited for state in drawn.states):
        yield _font("- - -", "9", palette.never, bold=True), "never taken, never visited"
    if any(state.current for state in drawn.states):
        yield _patch(palette.current, palette.current_edge), "where the run stands"
    if drawn.overlay.rejections:
        yield _patch(palette.rejected, palette.rejected_edge), "rejected event, with its position"
    if any(move.failure for move in moves):
        yield _font("handler failed", "9", palette.rejected_edge, bold=True), "what it raised"


def _patch(fill: str, edge: str, inside: str = "", *, width: int = 22, height: int = 12) -> str:
    """A small box as it is drawn for a state."""
    return (
        f'<table border="1" cellborder="0" cellspacing="0" cellpadding="{2 if inside else 0}" style="rounded" '
        f'fixedsize="true" width="{width}" height="{height}" bgcolor="{fill}" color="{edge}">'
        f"<tr><td>{inside}</td></tr></table>"
    )


def _font(words: str, size: str, color: str, *, bold: bool = False) -> str:
    shown = f"<b>{_html(words)}</b>" if bold else _html(words)
    return f'<font point-size="{size}" color="{color}">{shown}</font>'


def _html(name: str) -> str:
    return escape(visible(name)).replace("\\", "\\\\") or " "
