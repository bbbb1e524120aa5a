from pathlib import Path

from lifecycle.diagram.gallery import outdated

DIAGRAMS = Path(__file__).parent.parent / "diagrams"


def test_the_diagrams_that_people_see_are_what_the_code_draws():
    assert outdated(DIAGRAMS) == []
