"""SVG and the documentation in Chromium, light and dark."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from browser import evaluate
from drawing import FLAT, RUN

from lifecycle import protocols
from lifecycle.diagram import picture, to_svg
from lifecycle.diagram.palette import DARK, LIGHT

ROOT = Path(__file__).parents[2]
PALETTES = {"light": LIGHT, "dark": DARK}

LOOK = """
const rgb = (color) => "#" + color.match(/\\d+/g).slice(0, 3).map((n) => (+n).toString(16).padStart(2, "0")).join("");
const svg = document.querySelector("svg.lifecycle-diagram");
const paint = (query, part) => [...svg.querySelectorAll(query)].map((each) => rgb(getComputedStyle(each)[part]));
const rects = [...svg.querySelectorAll(".node text, .cluster text")].map((each) => each.getBoundingClientRect());
const inside = [...svg.querySelectorAll(".state")].every((state) => {
    const outer = state.querySelector("path").getBoundingClientRect();
    return [...state.querySelectorAll("text")].every((text) => {
        const inner = text.getBoundingClientRect();
        return outer.left <= inner.left && inner.right <= outer.right && outer.top <= inner.top + 2;
    });
});
let overlaps = 0;
for (const [number, one] of rects.entries())
    for (const other of rects.slice(number + 1))
        // A line of text is higher than its letters, by a fifth on either side.
        overlaps += one.left < other.right && other.left < one.right
            && one.top + one.height / 5 < other.bottom - other.height / 5
            && other.top + other.height / 5 < one.bottom - one.height / 5;
return {
    paper: paint(".graph > polygon", "fill")[0],
    states: [...new Set(paint(".state:not(.final):not(.current) path", "fill"))].filter((c) => c !== "#000000"),
    texts: [...new Set(paint(".state text", "fill"))],
    current: paint(".current path", "stroke"),
    inside, overlaps,
    label: svg.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent),
    tooltips: [...svg.querySelectorAll(".state > title")].map((each) => each.textContent),
    font: getComputedStyle(svg.querySelector("text")).fontFamily,
    width: svg.getBoundingClientRect().width,
};
"""


def look(page, scheme):
    return evaluate(page, LOOK, scheme)


@pytest.mark.parametrize("scheme", PALETTES)
def test_an_svg_has_the_colours_that_the_reader_prefers(scheme):
    palette = PALETTES[scheme]
    seen = look(to_svg(picture(FLAT, RUN)), scheme)
    assert seen["paper"] == palette.paper
    assert palette.state in seen["states"]
    assert seen["texts"] == [palette.ink]
    assert palette.current_edge in seen["current"]


@pytest.mark.parametrize("theme", PALETTES)
@pytest.mark.parametrize("scheme", PALETTES)
def test_a_fixed_theme_stays_whatever_the_reader_prefers(theme, scheme):
    assert look(to_svg(picture(FLAT), theme=theme), scheme)["paper"] == PALETTES[theme].paper


@pytest.mark.parametrize("protocol", protocols.BUILT_IN.values(), ids=lambda protocol: protocol.name)
def test_letters_as_the_browser_has_them_stay_in_their_place(protocol):
    seen = look(to_svg(picture(protocol)), "light")
    assert seen["inside"]
    assert seen["overlaps"] == 0


def test_the_picture_is_named_and_described_and_has_tooltips():
    seen = look(to_svg(picture(FLAT)), "light")
    assert seen["label"][0] == "flat lifecycle"
    assert "open -BATCH_START-> open" in seen["label"][1]
    assert seen["tooltips"] == ["new", "open", "done"]


def test_a_picture_shrinks_with_its_page():
    page = f'<meta charset="utf-8"><div style="width: 200px">{to_svg(picture(protocols.COMPRESSION))}</div>'
    assert look(page, "light")["width"] == 200


# The documentation

CONFIGURATION = """
site_name: test
theme: {{name: material, font: false, palette: {{scheme: {scheme}}}}}
hooks: [{hooks}]
"""


@pytest.mark.parametrize(("scheme", "palette"), [("default", LIGHT), ("slate", DARK)])
@pytest.mark.parametrize("preferred", PALETTES)
def test_a_page_of_the_documentation_shows_the_picture_as_the_page_is(tmp_path, scheme, palette, preferred):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(
        "# Page\n\n```lifecycle-diagram training\n```\n\n```lifecycle-table training\n```\n"
    )
    configuration = tmp_path / "mkdocs.yml"
    configuration.write_text(CONFIGURATION.format(scheme=scheme, hooks=ROOT / "docs" / "hooks.py"))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(configuration)]
    subprocess.run(command, check=True)
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<td><code>BATCH_END</code></td>", page)) == 2
    seen = look(page, preferred)
    assert seen["paper"] == palette.paper
    assert seen["texts"] == [palette.ink]
    assert len(seen["tooltips"]) == 7
