"""Finishing the SVG that Graphviz writes: tooltips, a style block, and words for those who do not see the picture."""

from __future__ import annotations

import re

# What is parsed here is what a Graphviz program has just written.
import xml.etree.ElementTree as ET
from hashlib import sha256
from typing import TYPE_CHECKING

from lifecycle.diagram.errors import RenderError
from lifecycle.diagram.model import describe
from lifecycle.diagram.palette import DARK, LIGHT
from lifecycle.diagram.text import visible

if TYPE_CHECKING:
    from lifecycle.diagram.model import Picture, State
    from lifecycle.diagram.overlay import Rejection
    from lifecycle.diagram.palette import Theme

__all__ = ["finish", "to_text"]

SVG = "{http://www.w3.org/2000/svg}"

READER_PREFERS_DARK = "@media (prefers-color-scheme: dark)"
"""What a style sheet asks to know whether the reader wants it dark."""

_STATE = re.compile(r"s\d+")
_NUMBER = re.compile(r"-?[0-9.]+")

FONTS = 'Helvetica, Arial, "Liberation Sans", Arimo, sans-serif'
"""Fonts whose letters are as wide as those that the picture was laid out with."""


def finish(source: bytes, drawn: Picture, theme: Theme = "auto", dark_within: str = "") -> str:
    """Turn what Graphviz wrote into an SVG that stands alone or within a page.

    Args:
        source: The SVG of Graphviz.
        drawn: The picture that it shows.
        theme: ``auto`` turns dark where the reader prefers that.
        dark_within: A CSS selector; if given, ``auto`` turns dark inside what it selects instead.

    Raises:
        RenderError: It is not an SVG.
    """
    try:
        root = ET.fromstring(source)  # noqa: S314
    except ET.ParseError as error:
        raise RenderError(f"the drawing program did not write an SVG: {error}") from error
    if root.tag != f"{SVG}svg":
        raise RenderError(f"the drawing program did not write an SVG, but <{root.tag}>")
    _tidy(root, _tooltips(drawn))
    words = to_text(drawn)
    key = sha256(source).hexdigest()[:12]
    root.attrib = {
        "xmlns": SVG[1:-1],
        **{name: root.attrib[name] for name in ("width", "height", "viewBox") if name in root.attrib},
        "class": f"lifecycle-diagram {theme}",
        "role": "img",
        "aria-labelledby": f"title-{key} desc-{key}",
    }
    title, description, style = ET.Element("title"), ET.Element("desc"), ET.Element("style")
    title.attrib["id"], title.text = f"title-{key}", visible(drawn.title)
    description.attrib["id"], description.text = f"desc-{key}", "\n".join(map(visible, words.splitlines()))
    style.text = _style(theme, dark_within)
    root[:0] = [title, description, style]
    return ET.tostring(root, encoding="unicode") + "\n"


def to_text(drawn: Picture) -> str:
    """A picture in words: what can happen in each state, and how the run went.

    Examples:
        >>> from lifecycle import protocols
        >>> from lifecycle.diagram import picture
        >>> print(to_text(picture(protocols.DATA_FREE)))
        data_free lifecycle
        protocol data_free: I (C S? K)* F: weights only, no batches
        A run begins in created. It is complete in finalized.
        created -INITIALIZE-> session.ready
        session.ready -CALIBRATION_EPOCH_START-> session.calibration.open / sequential_epochs = 0
        session.calibration.open -SEQUENTIAL_EPOCH_END-> session.calibration.layer_ended / sequential_epochs += 1
        session.calibration.open -CALIBRATION_EPOCH_END-> session.ready [counts as expected] / calibration_epochs += 1
        session.calibration.layer_ended -CALIBRATION_EPOCH_END-> session.ready \
[counts as expected] / calibration_epochs += 1
        session.ready -FINALIZE-> finalized [counts as expected]
    """
    names = {state.key: state.name for state in drawn.states}
    begin = ", ".join(state.name for state in drawn.states if state.initial)
    end = ", ".join(state.name for state in drawn.states if state.final)
    lines = [drawn.title, *drawn.subtitles, f"A run begins in {begin}. It is complete in {end}."]
    current = [f"The run stands in {state.name}." for state in drawn.states if state.current]
    moves = [describe(names[arrow.source], move, names[arrow.target]) for arrow in drawn.arrows for move in arrow.moves]
    rejected = [_rejected(state, rejection) for state in drawn.states for rejection in drawn.rejections(state).values()]
    return "\n".join(map(visible, [*lines, *current, *moves, *rejected]))


def _tooltips(drawn: Picture) -> dict[str, str]:
    """What each part says when it is pointed at, by its name in DOT."""
    names = {state.key: state.name for state in drawn.states}
    lines = {"start": ["start"], **{key: [name] for key, name in names.items()}}
    lines |= {f"cluster_{box.key}": [box.name] for box in drawn.boxes}
    for arrow in drawn.arrows:
        lines[arrow.key] = [describe(names[arrow.source], move, names[arrow.target]) for move in arrow.moves]
    for state in drawn.states:
        lines |= {key: [_rejected(state, rejection)] for key, rejection in drawn.rejections(state).items()}
    return {key: "\n".join(map(visible, each)) for key, each in lines.items()}


def _rejected(state: State, rejection: Rejection) -> str:
    return f"{rejection.event} rejected in {state.name}: {rejection.places(len(rejection.positions))}"


def _tidy(element: ET.Element, tips: dict[str, str]) -> None:
    """Drop what only Graphviz needs, and give each part its tooltip."""
    element.tag = element.tag.removeprefix(SVG)
    element.attrib.pop("id", None)
    element.text = element.text if element.text and element.text.strip() else None
    element.tail = "\n"
    for child in list(element):
        _tidy(child, tips)
    title = element.find("title")
    if title is not None:
        # Of the two ends of a line, the one that is no state says what the line is.
        ends = [end for end in (title.text or "").split("->") if end in tips]
        found = [end for end in ends if not _STATE.fullmatch(end)] or ends
        element.remove(title)
        if found:
            tip = ET.Element("title")
            tip.text = tips[found[0]]
            element.insert(0, tip)
    if element.get("class", "").startswith("node"):
        _centre(element)


def _centre(node: ET.Element) -> None:
    """Set the text of a node in its middle, since the reader's letters may be narrower than those of the program."""
    outline = next((part for part in node if part.tag in ("polygon", "path")), None)
    if outline is None:
        return
    numbers = [float(number) for number in _NUMBER.findall(outline.get("points") or outline.get("d") or "")]
    middle = (min(numbers[::2]) + max(numbers[::2])) / 2
    for words in node.iter("text"):
        words.attrib.update({"text-anchor": "middle", "x": f"{middle:.2f}"})


def _style(theme: Theme, dark_within: str) -> str:
    rules = [
        f".lifecycle-diagram {{ max-width: 100%; height: auto }}\n.lifecycle-diagram text {{ font-family: {FONTS} }}"
    ]
    if theme == "auto":
        within = f"{dark_within} .lifecycle-diagram" if dark_within else ".lifecycle-diagram"
        swaps = [
            f'{within}.auto [{part}="{light}"] {{ {part}: {dark} }}'
            for light, dark in LIGHT.pairs(DARK)
            for part in ("fill", "stroke")
        ]
        rules += swaps if dark_within else [f"{READER_PREFERS_DARK} {{", *swaps, "}"]
    return "\n".join(["", *rules, ""])
