"""Diagrams drawn by the real programs: Debian's `dot`, and that of graphviz-pure."""

import re
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise, product
from math import dist
from pathlib import Path

import pytest
from drawing import FLAT, RUN, generated, many
from hypothesis import HealthCheck, given, settings

from lifecycle import protocols
from lifecycle.diagram import Overlay, Rejection, Tally, draw, picture, to_svg
from lifecycle.diagram.palette import DARK, LIGHT
from lifecycle.diagram.text import visible

SVG = "{http://www.w3.org/2000/svg}"
PROGRAMS = {"dot": shutil.which("dot"), "graphviz-pure": str(Path(sys.executable).parent / "graphviz-pure")}
NUMBER = r"-?\d+(?:\.\d+)?"
NARROW, CAPITAL, SMALL = 0.28, 0.68, 0.5
"""Width of Helvetica's letters against their size, on average: of those as narrow as an I, and of the others."""

MEETING = 36
"""Points before their end within which two lines to the same state may come together, the widest arrowheads too."""


@pytest.fixture(params=PROGRAMS, autouse=True)
def program(request, monkeypatch):
    monkeypatch.setenv("LIFECYCLE_DOT", PROGRAMS[request.param])
    return request.param


def drawn_as_svg(drawn, **options):
    return ET.fromstring(to_svg(drawn, **options))  # noqa: S314 # made here


def of_class(svg, word):
    return [group for group in svg.iter(f"{SVG}g") if word in (group.get("class") or "").split()]


def words(group):
    return [text.text or "" for text in group.iter(f"{SVG}text")]


def run_of(protocol):
    """A long run with everything that can be marked."""
    counts = {
        (t.source, t.event.name): Tally(10 ** (n % 8), 0.001 * 7 ** (n % 9))
        for n, t in enumerate(protocol.transitions[:-2])
    }
    states = protocol.states[:-1]
    return Overlay(
        "run.jsonl", "a great many events", states[-1], tallies=counts, visited=frozenset(states),
        rejections=(Rejection(states[-1], "CALIBRATION_EPOCH_START", tuple(range(1000))),),
        failures={(protocol.transitions[1].source, protocol.transitions[1].event.name): "RuntimeError: out of memory"},
    )  # fmt: skip


ALL = {
    **{name: picture(protocol) for name, protocol in protocols.BUILT_IN.items()},
    **{f"run of {name}": picture(protocol, run_of(protocol)) for name, protocol in protocols.BUILT_IN.items()},
}
every_picture = pytest.mark.parametrize("drawn", ALL.values(), ids=ALL.keys())
every_plain_one = pytest.mark.parametrize(
    "drawn", [ALL[name] for name in protocols.BUILT_IN], ids=[*protocols.BUILT_IN]
)


# What is there


@every_picture
def test_every_state_box_and_event_is_drawn_once(drawn):
    svg = drawn_as_svg(drawn)
    assert sorted(map(words, of_class(svg, "state"))) == sorted([state.label] for state in drawn.states)
    assert sorted(map(words, of_class(svg, "box"))) == sorted([box.label] for box in drawn.boxes)
    found = [line for group in of_class(svg, "event") for line in words(group)]
    assert sorted(line for line in found if re.fullmatch(r"[A-Z_]+", line)) == sorted(
        move.event for arrow in drawn.arrows for move in arrow.moves
    )


@every_picture
def test_every_state_event_and_line_has_a_tooltip(drawn):
    svg = drawn_as_svg(drawn)
    tips = [group.find(f"{SVG}title").text for group in of_class(svg, "state")]
    assert sorted(tips) == sorted(state.name for state in drawn.states)
    for word in ("event", "edge", "box"):
        assert of_class(svg, word)[0].find(f"{SVG}title") is not None
        assert all(group.find(f"{SVG}title").text for group in of_class(svg, word))


def test_a_run_shows_its_marks():
    svg = drawn_as_svg(picture(FLAT, RUN))
    assert [words(group) for group in of_class(svg, "current")] == [["open"]]
    assert [words(group) for group in of_class(svg, "never") if "state" in group.get("class")] == [["done"]]
    assert ["BATCH_END", "event 3"] in [words(group) for group in of_class(svg, "rejected")]
    assert "handler failed: ValueError: <bad>" in [line for group in of_class(svg, "event") for line in words(group)]


# How it looks


def box_of(text):
    size = float(text.get("font-size"))
    width = size * sum(
        NARROW if letter in "I[]/.,:;!|ijlt " else CAPITAL if letter.isupper() else SMALL for letter in text.text or ""
    )
    x, y = float(text.get("x")), float(text.get("y"))
    left = x - width / 2 if text.get("text-anchor") == "middle" else x
    return left, y - 0.72 * size, left + width, y + 0.1 * size


def texts_of(svg):
    """Each text with the group that it is in."""
    groups = [group for word in ("node", "cluster") for group in of_class(svg, word)]
    return [(group, box_of(text), text.text) for group in groups for text in group.iter(f"{SVG}text")]


def points_of(path, steps=24):
    numbers = [float(number) for number in re.findall(NUMBER, path.get("d"))]
    knots = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start in range(0, len(knots) - 3, 3):
        for step in range(steps + 1):
            t = step / steps
            weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
            yield tuple(
                sum(w * knot[axis] for w, knot in zip(weights, knots[start : start + 4], strict=True))
                for axis in (0, 1)
            )


def ends_of(group):
    """The first and the last point of the line of a group."""
    points = [point for path in group.iter(f"{SVG}path") for point in points_of(path)]
    return points[0], points[-1]


@every_picture
def test_no_text_lies_over_another(drawn):
    for (_, first, one), (_, second, other) in combinations(texts_of(drawn_as_svg(drawn)), 2):
        apart = first[2] <= second[0] or second[2] <= first[0] or first[3] <= second[1] or second[3] <= first[1]
        assert apart, (one, other)


def lines_of(svg):
    """The points of each line, with what the line is."""
    for group in of_class(svg, "edge"):
        for path in group.iter(f"{SVG}path"):
            yield list(points_of(path)), group.find(f"{SVG}title").text


@every_picture
@pytest.mark.parametrize("direction", ["TB", "LR"])
def test_no_line_crosses_a_text(drawn, direction):
    svg = drawn_as_svg(drawn, direction=direction)
    texts = texts_of(svg)
    for line, name in lines_of(svg):
        for x, y in line:
            for _, (left, top, right, bottom), text in texts:
                assert not (left < x < right and top < y < bottom), (name, text)


def cross(first, second):
    """Whether two straight lines cross."""

    def side(line, point):
        (left, top), (right, bottom) = line
        return (right - left) * (point[1] - top) - (bottom - top) * (point[0] - left)

    return side(first, second[0]) * side(first, second[1]) < 0 and side(second, first[0]) * side(second, first[1]) < 0


def crossings(svg):
    """The pairs of lines that cross, elsewhere than where both end at a state."""
    for (first, one), (second, other) in combinations(lines_of(svg), 2):
        for a, b in product(pairwise(first), pairwise(second)):
            if cross(a, b) and not (at_end(first, a[0]) and at_end(second, b[0])):
                yield one, other
                break


def at_end(line, point):
    return min(dist(point, line[0]), dist(point, line[-1])) < MEETING


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"upstream", "run of upstream"}))
def test_no_line_crosses_another(name):
    assert list(crossings(drawn_as_svg(ALL[name]))) == []


def test_where_almost_anything_is_allowed_few_lines_cross():
    svg = drawn_as_svg(ALL["upstream"])
    assert len(list(crossings(svg))) < len(of_class(svg, "edge")) / 2


@every_plain_one
def test_the_usual_path_is_straight(drawn):
    svg = drawn_as_svg(drawn)
    middles = {}
    for group in of_class(svg, "state"):
        middles[group.find(f"{SVG}title").text] = float(next(group.iter(f"{SVG}text")).get("x"))
    chain = [middles[state.name] for state in drawn.states if state.chain == 0]
    assert max(chain) - min(chain) < 1


@every_plain_one
def test_the_usual_path_runs_down(drawn):
    heights = {}
    for group in of_class(drawn_as_svg(drawn), "state"):
        heights[group.find(f"{SVG}title").text] = float(next(group.iter(f"{SVG}text")).get("y"))
    names = {state.key: state.name for state in drawn.states}
    for arrow in drawn.arrows:
        if arrow.kind == "main":
            assert heights[names[arrow.source]] < heights[names[arrow.target]]


@every_picture
def test_every_colour_has_a_dark_one(drawn):
    svg = drawn_as_svg(drawn)
    used = {each.get(part) for each in svg.iter() for part in ("fill", "stroke")}
    assert used - {None, "none", "transparent", "black"} <= {light for light, _ in LIGHT.pairs(DARK)}
    assert not [each for each in svg.iter() if each.get("fill") == "black"]


# Names that try to break out


def check_names(protocol):
    drawn = picture(protocol)
    svg = drawn_as_svg(drawn)
    tags = {each.tag.removeprefix(SVG) for each in svg.iter()}
    assert tags <= {"svg", "g", "title", "desc", "style", "path", "polygon", "polyline", "ellipse", "text"}
    attributes = {
        name.removeprefix("{http://www.w3.org/XML/1998/namespace}") for each in svg.iter() for name in each.attrib
    }
    assert attributes <= {
        "width", "height", "viewBox", "class", "role", "aria-labelledby", "id", "transform", "fill", "stroke", "points",
        "stroke-width", "stroke-dasharray", "d", "cx", "cy", "rx", "ry", "text-anchor", "x", "y", "font-family",
        "font-size", "font-weight", "space",
    }  # fmt: skip
    tips = sorted(group.find(f"{SVG}title").text.split() for group in of_class(svg, "state"))
    assert tips == sorted(visible(state).split() for state in protocol.states)
    labels = sorted("".join(words(group)).split() for group in of_class(svg, "state"))
    assert labels == sorted(visible(state.label).replace("\xa0", " ").split() for state in drawn.states)
    assert len(of_class(svg, "event")) == len(drawn.arrows)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(generated())
def test_whatever_the_names_all_is_drawn_and_nothing_else(protocol):
    check_names(protocol)


def test_two_hundred_states_are_drawn():
    check_names(many(200))


# Files


def test_a_png_is_a_png_of_the_size_of_the_svg():
    png = draw(picture(FLAT), "png")
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    svg = drawn_as_svg(picture(FLAT))
    assert (width / 2, height / 2) == pytest.approx(
        (float(svg.get("width")[:-2]), float(svg.get("height")[:-2])), rel=0.02
    )


def test_dot_draws_a_pdf_and_the_pure_program_says_that_it_cannot(program):
    if program == "dot":
        assert draw(picture(FLAT), "pdf").startswith(b"%PDF-")
    else:
        with pytest.raises(ValueError, match="only Graphviz itself draws PDF"):
            draw(picture(FLAT), "pdf")


# Environments that have nothing but what a user installs

ROOT = Path(__file__).parents[2]
once = pytest.mark.parametrize("program", [""], ids=["installed"])


def installed(folder, extra):
    """The command of an empty environment into which the package alone was installed."""
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "pip", "install", "-q", f"{ROOT}{extra}"], check=True)
    return folder / "bin" / "lifecycle"


@pytest.fixture(scope="module")
def with_render(tmp_path_factory):
    return installed(tmp_path_factory.mktemp("with_render"), "[render]")


@pytest.fixture(scope="module")
def without_render(tmp_path_factory):
    return installed(tmp_path_factory.mktemp("without_render"), "")


def drawing(command, path, *options):
    """What drawing the default protocol comes to, with this path and nothing else in the environment."""
    return subprocess.run([command, "draw", *options], env={"PATH": str(path)}, capture_output=True, check=False)


@pytest.fixture
def no_path(tmp_path):
    (tmp_path / "nothing").mkdir()
    return tmp_path / "nothing"


@pytest.fixture
def debian_path(tmp_path):
    """A path on which there is Debian's `dot` alone."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dot").symlink_to(PROGRAMS["dot"])
    return tmp_path / "bin"


@once
def test_the_extra_draws_where_there_is_no_graphviz(with_render, no_path, tmp_path):
    for name, begin in {"x.svg": b"<svg ", "x.png": b"\x89PNG"}.items():
        done = drawing(with_render, no_path, "-o", tmp_path / name)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / name).read_bytes().startswith(begin)


@once
def test_the_extra_says_that_it_draws_no_pdf(with_render, no_path, tmp_path):
    done = drawing(with_render, no_path, "-o", tmp_path / "x.pdf")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"[^\n]* could not draw pdf: [^\n]*only Graphviz itself draws PDF\n", done.stderr)
    assert not (tmp_path / "x.pdf").exists()


@once
def test_the_graphviz_of_debian_draws_without_the_extra(without_render, debian_path, tmp_path):
    for name, begin in {"x.svg": b"<svg ", "x.png": b"\x89PNG", "x.pdf": b"%PDF-"}.items():
        done = drawing(without_render, debian_path, "-o", tmp_path / name)
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / name).read_bytes().startswith(begin)


@once
@pytest.mark.parametrize("name", ["x.svg", "x.png", "x.pdf"])
def test_without_either_the_error_is_one_line_with_the_command_that_installs_one(
    without_render, no_path, tmp_path, name
):
    done = drawing(without_render, no_path, "-o", tmp_path / name)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb'[^\n]*: pip install "compression-lifecycle\[render\]"\n', done.stderr)
    assert not (tmp_path / name).exists()


@once
@pytest.mark.parametrize(
    ("form", "begin"), [("dot", b"digraph "), ("mermaid", b"stateDiagram-v2\n"), ("table", b"| State ")]
)
def test_without_either_the_texts_are_drawn(without_render, no_path, form, begin):
    done = drawing(without_render, no_path, "--format", form)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(begin)
