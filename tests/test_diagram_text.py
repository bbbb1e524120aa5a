import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.diagram.text import visible


@pytest.mark.parametrize("name", ["ready", "two words", "é ß 漢 🙂", '<b>"&', ""])
def test_what_can_be_drawn_stays_as_it_is(name):
    assert visible(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [("\n", "\\n"), ("\x00", "\\x00"), ("\x85", "\\x85"), ("\u202e", "\\u202e"), ("\ud800", "\\ud800")],
)
def test_what_cannot_be_drawn_is_written_as_in_python(name, shown):
    assert visible(f"a{name}b") == f"a{shown}b"


@given(st.text())
def test_what_is_visible_can_be_encoded_and_is_on_one_line(name):
    assert len(visible(name).encode().decode().splitlines()) <= 1
