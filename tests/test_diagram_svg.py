import xml.etree.ElementTree as ET

import pytest
from drawing import FLAT, GRAPHVIZ, RUN, vocabulary

from lifecycle import Protocol, Transition, protocols
from lifecycle.diagram import RenderError, picture, to_text
from lifecycle.diagram.palette import DARK, LIGHT
from lifecycle.diagram.renderers.svg import finish

SVG = "{http://www.w3.org/2000/svg}"


def parsed(drawn, **options):
    return ET.fromstring(finish(GRAPHVIZ, drawn, **options))  # noqa: S314 # made here


def root(**options):
    return parsed(picture(FLAT), **options)


def element(svg, class_):
    return next(each for each in svg.iter() if each.get("class") == class_)


def test_the_picture_has_a_title_and_a_description_for_those_who_do_not_see_it():
    svg = root()
    title, description = svg[0], svg[1]
    assert (title.tag, description.tag) == (f"{SVG}title", f"{SVG}desc")
    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == "flat lifecycle"
    assert description.text == to_text(picture(FLAT))


def test_the_size_is_that_of_the_program_and_may_shrink():
    svg = root()
    assert (svg.get("width"), svg.get("height"), svg.get("viewBox")) == ("10pt", "20pt", "0.00 0.00 10.00 20.00")
    assert "max-width: 100%" in svg.find(f"{SVG}style").text


@pytest.mark.parametrize(
    ("class_", "tip"),
    [
        ("node state", "new"),
        ("node event", "new -INITIALIZE-> open: 1x 500 ms"),
        ("edge main", "new -INITIALIZE-> open: 1x 500 ms"),
        ("edge start", "start"),
        ("edge rejected", "BATCH_END rejected in open: event 3"),
    ],
)
def test_each_part_says_what_it_is(class_, tip):
    svg = parsed(picture(FLAT, RUN))
    assert element(svg, class_)[0].text == tip


def test_a_box_says_its_full_name():
    svg = parsed(picture(protocols.TRAINING))
    assert element(svg, "cluster box")[0].text == "session"


def test_several_events_and_whatever_they_are_called_have_a_line_each():
    go = vocabulary(["\n<b>", "b"])
    protocol = Protocol(
        "p", states=["a", "z"], transitions=[Transition("a", event, "z") for event in go], initial="a", final=["z"],
        vocabularies=[go],
    )  # fmt: skip
    svg = parsed(picture(protocol))
    assert element(svg, "node event")[0].text == "a -E0 \\n<b> e-> z\na -E1 b e-> z"


def test_what_has_nothing_to_say_has_no_tooltip():
    svg = root()
    assert element(svg, "cluster whole").find(f"{SVG}title") is None
    assert element(svg, "graph").find(f"{SVG}title") is None


def test_identifiers_go():
    svg = root()
    assert {each.get("id") for each in svg.iter()} == {None, svg[0].get("id"), svg[1].get("id")}


def test_text_stands_in_the_middle_of_its_outline():
    text = element(root(), "node state").find(f"{SVG}text")
    assert (text.get("text-anchor"), text.get("x")) == ("middle", "20.00")


def test_text_without_an_outline_stays_where_it_is():
    assert element(root(), "node event").find(f"{SVG}text").get("x") == "7"


def test_auto_turns_dark_where_the_reader_prefers_it():
    style = root().find(f"{SVG}style").text
    assert "@media (prefers-color-scheme: dark) {" in style
    for light, dark in LIGHT.pairs(DARK):
        assert f'.lifecycle-diagram.auto [fill="{light}"] {{ fill: {dark} }}' in style
        assert f'.lifecycle-diagram.auto [stroke="{light}"] {{ stroke: {dark} }}' in style


def test_auto_can_turn_dark_within_a_part_of_a_page():
    style = root(dark_within=".night").find(f"{SVG}style").text
    assert f'.night .lifecycle-diagram.auto [fill="{LIGHT.ink}"] {{ fill: {DARK.ink} }}' in style
    assert "@media" not in style


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_fixed_theme_stays_as_it_is_drawn(theme):
    svg = root(theme=theme)
    assert svg.get("class") == f"lifecycle-diagram {theme}"
    assert "#" not in svg.find(f"{SVG}style").text


def test_there_is_one_style_block():
    assert len(list(root().iter(f"{SVG}style"))) == 1


@pytest.mark.parametrize("source", [b"", b"<svg", b"no <svg/>"])
def test_what_is_not_well_formed_is_refused(source):
    with pytest.raises(RenderError, match="did not write an SVG: "):
        finish(source, picture(FLAT))


def test_what_is_something_else_is_refused():
    with pytest.raises(RenderError, match="did not write an SVG, but <html>"):
        finish(b"<html/>", picture(FLAT))


def test_a_run_in_words_says_all_that_the_picture_shows():
    assert to_text(picture(FLAT, RUN)).splitlines() == [
        "flat lifecycle",
        "protocol flat: 3 states, 3 transitions",
        "run.jsonl: 5 events, 1 violation, incomplete in open",
        "coverage: 2 of 3 states, 2 of 3 transitions",
        "A run begins in new. It is complete in done.",
        "The run stands in open.",
        "new -INITIALIZE-> open: 1x 500 ms",
        "open -BATCH_START-> open: 4x 2 s, 500 ms each, handler failed: ValueError: <bad>",
        "open -FINALIZE-> done [counts as expected]: never",
        "BATCH_END rejected in open: event 3",
    ]
