from dataclasses import astuple, fields

import pytest

from lifecycle.diagram.palette import DARK, LIGHT, PALETTES, Palette

READABLE = 4.5
"""Contrast that small text needs (WCAG 2, level AA)."""

VISIBLE = 1.5
"""Contrast that a line needs to be seen where nothing hangs on it; what matters has words too."""

TEXTS = ["ink", "muted", "count", "rejected_edge"]
GROUNDS = ["paper", "box_1", "box_2", "box_3", "box_4"]


def luminance(color):
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first, second):
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_is_readable_on_every_ground(palette, ground, text):
    assert contrast(getattr(palette, text), getattr(palette, ground)) >= READABLE


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), [
    ("ink", "state"), ("ink", "final"), ("ink", "current"), ("rejected_edge", "rejected"),
])  # fmt: skip
def test_text_is_readable_in_every_mark(palette, text, ground):
    assert contrast(getattr(palette, text), getattr(palette, ground)) >= READABLE


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("line", ["line", "taken", "never", "state_edge", "final_edge", "current_edge"])
def test_lines_are_visible_on_every_ground(palette, ground, line):
    assert contrast(getattr(palette, line), getattr(palette, ground)) >= VISIBLE


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_no_two_parts_share_a_colour(palette):
    assert len(set(astuple(palette))) == len(fields(Palette))


def test_no_dark_colour_is_a_light_one():
    assert not set(astuple(LIGHT)) & set(astuple(DARK))


def test_the_tints_of_boxes_repeat_after_the_fourth_level():
    assert [LIGHT.box(level) for level in (1, 5, 9)] == [(LIGHT.box_1, LIGHT.box_1_edge)] * 3
    assert len({LIGHT.box(level) for level in range(1, 9)}) == 4


def test_auto_begins_light():
    assert PALETTES == {"auto": LIGHT, "light": LIGHT, "dark": DARK}
