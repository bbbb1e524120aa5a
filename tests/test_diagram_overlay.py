import pytest

from lifecycle.diagram import Overlay, Rejection, Tally
from lifecycle.diagram.overlay import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (5e-9, "5 ns"),
        (1e-6, "1 us"),
        (0.0004567, "457 us"),
        (0.25, "250 ms"),
        (1.0, "1 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (3599.0, "60 min"),
        (5400.0, "1.5 h"),
    ],
)
def test_a_time_is_in_the_unit_that_suits_it(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("tally", "text"),
    [
        (Tally(), "never"),
        (Tally(3), "3x"),
        (Tally(1, 2.0), "1x 2 s"),
        (Tally(1_234_567, 12.5), "1,234,567x 12.5 s, 10.1 us each"),
    ],
)
def test_a_tally_says_how_often_and_how_long(tally, text):
    assert str(tally) == text


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ((7,), "event 7"),
        ((1, 2, 3, 4, 5), "events 1, 2, 3, 4, 5"),
        ((1, 2, 3, 4, 5, 6, 7), "events 1, 2, 3, 4, 5 and 2 more"),
    ],
)
def test_a_rejection_says_where(positions, text):
    assert Rejection("open", "BATCH_END", positions).places() == text


def test_what_was_never_taken_is_told_from_what_nobody_counted():
    counted = Overlay("run", "", "", tallies={("a", "GO"): Tally(2)})
    assert (counted.tally("a", "GO"), counted.tally("b", "GO")) == (Tally(2), Tally())
    assert Overlay("run", "", "").tally("a", "GO") is None
