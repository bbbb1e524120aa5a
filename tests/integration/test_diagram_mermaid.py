"""Mermaid as it is drawn by Mermaid itself, in Chromium. The variable MERMAID_JS names its `mermaid.min.js`."""

import html
import json
import os
import re
from pathlib import Path

from browser import evaluate
from drawing import FLAT, RUN, generated, many
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle import protocols
from lifecycle.diagram import picture, to_mermaid
from lifecycle.diagram.text import visible

ROOT = Path(__file__).parents[2]
MERMAID = Path(os.environ.get("MERMAID_JS", ROOT / "node_modules/mermaid/dist/mermaid.min.js"))

DRAW = """
mermaid.initialize({{startOnLoad: false, securityLevel: "strict", maxTextSize: 10000000, maxEdges: 100000}});
const drawn = [];
for (const [number, text] of {texts}.entries()) {{
    const {{svg}} = await mermaid.render("drawn" + number, text);
    const page = document.createElement("div");
    page.innerHTML = svg;
    document.body.append(page);
    const shown = (query) => [...page.querySelectorAll(query)].map((each) => each.textContent.trim());
    const holds = (outer, inner) => outer.left <= inner.left && inner.right <= outer.right
        && outer.top <= inner.top && inner.bottom <= outer.bottom;
    const boxes = Object.fromEntries([...page.querySelectorAll(".statediagram-cluster")].map(
        (each) => [each.id.replace(/^.*?(b\\d+).*$/, "$1"), each.getBoundingClientRect()]));
    const states = Object.fromEntries([...page.querySelectorAll(".node")].map(
        (each) => [(each.id.match(/state-(s\\d+(?:r\\d+)?)-/) || [])[1], each]).filter(([key]) => key));
    const within = {{}};
    for (const [key, each] of Object.entries(states))
        within[key] = Object.keys(boxes).filter((box) => holds(boxes[box], each.getBoundingClientRect())).sort();
    drawn.push({{
        states: Object.fromEntries(Object.entries(states).map(([key, each]) => [key, each.textContent.trim()])),
        boxes: shown(".statediagram-cluster .cluster-label"),
        events: [...page.querySelectorAll("g.edgeLabel foreignObject > div")].map((each) => each.innerText),
        within,
        current: [...page.querySelectorAll(".node.current")].map((each) => each.textContent.trim()),
        scripts: page.querySelectorAll("script, img, iframe, a, [onload], [onerror], [onclick]").length,
    }});
}}
return drawn;
"""


def drawn_by_mermaid(pictures):
    assert MERMAID.is_file(), "install Mermaid with npm, and let MERMAID_JS name its mermaid.min.js"
    texts = json.dumps([to_mermaid(each) for each in pictures]).replace("</", "<\\/")
    page = f'<!doctype html><meta charset="utf-8"><script src="{MERMAID.as_uri()}"></script>'
    return evaluate(page, DRAW.format(texts=texts))


def squeezed(name):
    """A name as HTML shows it: runs of blanks are one."""
    return " ".join(html.unescape(visible(name)).split()) if "&" not in name else " ".join(visible(name).split())


def check(drawn, shown):
    assert {key: squeezed(text) for key, text in shown["states"].items() if "r" not in key} == {
        state.key: squeezed(state.label) for state in drawn.states
    }
    assert sorted(map(squeezed, shown["boxes"])) == sorted(squeezed(box.label) for box in drawn.boxes)
    assert shown["scripts"] == 0
    parents = {box.key: box.parent for box in drawn.boxes}
    for state in drawn.states:
        around, box = [], state.box
        while box:
            around.append(box)
            box = parents[box]
        assert shown["within"][state.key] == sorted(around)


def test_every_built_in_protocol_is_drawn_with_every_state_in_its_boxes():
    pictures = [picture(protocol) for protocol in protocols.BUILT_IN.values()]
    for drawn, shown in zip(pictures, drawn_by_mermaid(pictures), strict=True):
        check(drawn, shown)
        moves = [move for arrow in drawn.arrows for move in arrow.moves]
        events = sorted(event for text in shown["events"] for event in re.findall(r"[A-Z]+(?:_[A-Z]+)*", text))
        assert events == sorted(move.event for move in moves)


def test_a_run_has_its_current_state_highlighted():
    (shown,) = drawn_by_mermaid([picture(FLAT, RUN)])
    assert shown["current"] == ["open"]
    assert shown["states"]["s1r0"] == "BATCH_END event 3"


def test_two_hundred_states_are_drawn():
    (shown,) = drawn_by_mermaid([picture(many(200))])
    assert len(shown["states"]) == 200


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.large_base_example]
)
@given(st.lists(generated(most=6), min_size=5, max_size=5))
def test_whatever_the_names_all_is_drawn_and_nothing_else(generated_ones):
    pictures = list(map(picture, generated_ones))
    for drawn, shown in zip(pictures, drawn_by_mermaid(pictures), strict=True):
        check(drawn, shown)
