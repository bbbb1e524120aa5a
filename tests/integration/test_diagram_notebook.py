"""What a real notebook shows."""

import nbformat
import pytest
from nbclient import NotebookClient

CELLS = {
    "protocol": "from lifecycle import Lifecycle, protocols, trace\nprotocols.TRAINING",
    "lifecycle": "lc = Lifecycle('training')\nlc.initialize()\nlc",
    "report": "import io\ntrace.check(io.BytesIO(b'{\"event\": \"INITIALIZE\"}'), 'training')",
    "formatted": "print(format(protocols.TRAINING, 'mermaid'))",
}


def executed(monkeypatch, dot):
    monkeypatch.setenv("LIFECYCLE_DOT", dot)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return {name: cell.outputs[-1] for name, cell in zip(CELLS, notebook.cells, strict=True)}


@pytest.fixture(scope="module")
def shown():
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield executed(monkeypatch, "")


@pytest.mark.parametrize("name", ["protocol", "lifecycle", "report"])
def test_a_value_is_shown_as_svg_mermaid_and_text(shown, name):
    data = shown[name].data
    assert set(data) == {"image/svg+xml", "text/vnd.mermaid", "text/plain"}
    assert data["image/svg+xml"].startswith("<svg ")
    assert data["text/vnd.mermaid"].startswith("stateDiagram-v2")


def test_a_lifecycle_is_shown_where_it_stands(shown):
    assert "class s1 current" in shown["lifecycle"].data["text/vnd.mermaid"]
    assert shown["lifecycle"].data["text/plain"].startswith("<Lifecycle 'training' in session.ready")


def test_format_gives_mermaid(shown):
    assert shown["formatted"].text.startswith("stateDiagram-v2")


def test_without_a_program_mermaid_and_text_are_shown(monkeypatch):
    data = executed(monkeypatch, "/no/such/dot")["protocol"].data
    assert set(data) == {"text/vnd.mermaid", "text/plain"}
