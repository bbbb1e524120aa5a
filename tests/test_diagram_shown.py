import pytest
from drawing import FLAT, GRAPHVIZ, program, report, run

from lifecycle import Lifecycle, protocols
from lifecycle.diagram import (
    overlay_of_lifecycle,
    overlay_of_report,
    picture,
    to_dot,
    to_mermaid,
    to_svg,
    to_table,
)
from lifecycle.diagram.shown import formatted, mimebundle


@pytest.fixture
def drawing(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFECYCLE_DOT", str(program(tmp_path, f"sys.stdout.buffer.write({GRAPHVIZ!r})")))


@pytest.fixture
def no_program(monkeypatch):
    monkeypatch.setenv("LIFECYCLE_DOT", "/no/such/dot")


def test_a_protocol_shows_itself_as_text_mermaid_and_svg(drawing):
    drawn = picture(FLAT)
    assert mimebundle(FLAT) == {
        "text/plain": "<Protocol 'flat': 3 states, 3 transitions>",
        "text/vnd.mermaid": to_mermaid(drawn),
        "image/svg+xml": to_svg(drawn),
    }


def test_without_a_program_there_are_text_and_mermaid(no_program):
    assert list(mimebundle(FLAT)) == ["text/plain", "text/vnd.mermaid"]


def test_a_lifecycle_shows_where_it_stands(no_program):
    lc = Lifecycle(FLAT)
    lc.initialize()
    bundle = mimebundle(lc)
    assert bundle["text/plain"] == repr(lc)
    assert bundle["text/vnd.mermaid"] == to_mermaid(picture(FLAT, overlay_of_lifecycle(lc)))


def trained(protocol):
    return report(run(protocol=protocol, state="session.ready", visited=("created",), transitions=()))


@pytest.mark.parametrize(
    ("name", "protocol"),
    [("training", protocols.TRAINING), ("training+repeat_steps", protocols.TRAINING.repeat_steps())],
)
def test_a_report_shows_its_run_over_its_protocol(no_program, name, protocol):
    checked = trained(name)
    bundle = mimebundle(checked)
    assert bundle["text/plain"] == str(checked)
    assert bundle["text/vnd.mermaid"] == to_mermaid(picture(protocol, overlay_of_report(checked, protocol)))


@pytest.mark.parametrize("checked", [trained("my own"), report()])
def test_a_report_of_an_unknown_protocol_shows_itself_as_text(no_program, checked):
    assert mimebundle(checked) == {"text/plain": str(checked)}


def test_a_protocol_can_be_formatted():
    assert formatted(FLAT, "mermaid") == to_mermaid(picture(FLAT))
    assert formatted(FLAT, "dot") == to_dot(picture(FLAT))
    assert formatted(FLAT, "table") == to_table(FLAT)
    assert formatted(FLAT, "") == repr(FLAT)


def test_a_lifecycle_can_be_formatted():
    lc = Lifecycle(FLAT)
    assert formatted(lc, "mermaid") == to_mermaid(picture(FLAT, overlay_of_lifecycle(lc)))
    assert formatted(lc, "table") == to_table(FLAT)
    assert formatted(lc, "") == repr(lc)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="the format must be one of mermaid, dot, table, got '>10'"):
        formatted(FLAT, ">10")
