import pytest
from drawing import GRAPHVIZ, program

from lifecycle import LifecycleError, protocols
from lifecycle.diagram import to_table
from lifecycle.diagram.pages import expand


@pytest.fixture(autouse=True)
def drawing(monkeypatch, tmp_path):
    content = f"open({str(tmp_path / 'got.dot')!r}, 'wb').write(source)\nsys.stdout.buffer.write({GRAPHVIZ!r})"
    monkeypatch.setenv("LIFECYCLE_DOT", str(program(tmp_path, content)))


TABLE = to_table(protocols.TRAINING)


@pytest.mark.parametrize(
    "page",
    [
        "",
        "no directive\n",
        "```python\nlifecycle-table\n```\n",
        "```\nlifecycle-table training\n```\n",
        "````md\n```lifecycle-table training\n```\n````\n",
        "~~~\n```lifecycle-table nonsense\n```\n~~~\n",
        "```lifecycle-tables training\n```\n",
        "an open block\n\n```python\nx = 1",
        "crlf\r\n```text\r\nx\r\n```\r\n",
        "inline `lifecycle-table training` and ```lifecycle-table training``` too\n",
    ],
)
def test_a_page_without_directives_stays_as_it_is(page):
    assert expand(page) == page


@pytest.mark.parametrize(
    "block",
    [
        "```lifecycle-table training\n```\n",
        "~~~ lifecycle-table training\n~~~\n",
        "`````lifecycle-table  training  \n\n`````\n",
        "```lifecycle-table training\n",
        "```lifecycle-table 'training'\n```\n",
    ],
)
def test_a_table_stands_where_it_was_asked_for(block):
    assert expand(f"before\n\n{block}") == f"before\n\n{TABLE}"


def test_what_follows_a_directive_stays():
    assert expand("```lifecycle-table training\n```\nafter\n") == f"{TABLE}after\n"


def test_an_indented_directive_gives_an_indented_table():
    lines = expand("- item\n\n    ```lifecycle-table training\n    ```\n").splitlines()
    assert lines[2:] == [f"    {line}" for line in TABLE.splitlines()]


def test_a_protocol_of_ones_own_is_looked_up_beside_the_page(tmp_path):
    (tmp_path / "own.py").write_text("from lifecycle import protocols\nmine = protocols.TRAINING")
    assert expand("```lifecycle-table own.py:mine\n```\n", tmp_path) == TABLE


def test_a_diagram_is_one_line_of_html_that_turns_dark_with_the_page():
    lines = expand("```lifecycle-diagram training\n```\n").splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('<figure><svg xmlns="http://www.w3.org/2000/svg"')
    assert lines[0].endswith("</svg></figure>")
    assert '[data-md-color-scheme="slate"] .lifecycle-diagram' in lines[0]


def test_a_diagram_runs_as_it_is_asked_to(tmp_path):
    expand("```lifecycle-diagram training direction=LR\n```\n")
    assert "rankdir=LR" in (tmp_path / "got.dot").read_text()


def test_a_diagram_can_show_a_run(tmp_path):
    (tmp_path / "run.jsonl").write_text('{"event": "INITIALIZE"}\n{"event": "FINALIZE"}\n')
    expand("```lifecycle-diagram training trace=run.jsonl\n```\n", tmp_path)
    assert "coverage: 3 of 7 states, 2 of 8 transitions" in (tmp_path / "got.dot").read_text()


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ("lifecycle-table", r"line 2, lifecycle-table: name one protocol, got \[\]"),
        ("lifecycle-table basic training", "name one protocol, got"),
        ("lifecycle-table nonsense", "'nonsense' is not a built-in protocol"),
        ("lifecycle-table basic direction=LR", "'direction' is not an option; known: none"),
        ("lifecycle-diagram basic dir=LR", "'dir' is not an option; known: direction, trace"),
        ("lifecycle-diagram basic direction=XY", "direction must be TB or LR, got 'XY'"),
        ("lifecycle-diagram none.py:x", "none.py"),
        ("lifecycle-diagram basic trace=none.jsonl", "none.jsonl"),
        ("lifecycle-diagram 'basic", "No closing quotation"),
        ("lifecycle-table basic\ntext", "the block must be empty"),
    ],
)
def test_a_wrong_directive_is_an_error_that_says_where(block, problem):
    with pytest.raises(LifecycleError, match=problem) as caught:
        expand(f"title\n```{block}\n```\n")
    assert str(caught.value).startswith("line 2, ")
