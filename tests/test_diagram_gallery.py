import re

import pytest
from drawing import GRAPHVIZ, program

from lifecycle import TraceFormatError, protocols
from lifecycle.diagram import picture, to_dot, to_mermaid
from lifecycle.diagram.gallery import outdated, write


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFECYCLE_DOT", str(program(tmp_path, f"sys.stdout.buffer.write({GRAPHVIZ!r})")))
    return tmp_path / "diagrams"


@pytest.fixture
def with_run(folder):
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "good.jsonl").write_text('{"event": "INITIALIZE"}\n{"event": "FINALIZE"}\n')
    return folder


def test_each_protocol_is_drawn_as_dot_mermaid_and_svg(folder):
    names = write(folder)
    assert sorted(names) == sorted(
        ["README.md", *(f"{name}.{end}" for name in protocols.BUILT_IN for end in ("dot", "mmd", "svg"))]
    )
    for name, protocol in protocols.BUILT_IN.items():
        assert (folder / f"{name}.dot").read_text() == to_dot(picture(protocol))
        assert (folder / f"{name}.mmd").read_text() == to_mermaid(picture(protocol))


def test_the_runs_in_the_folder_are_drawn_over_the_default_protocol(with_run):
    assert {"run-good.dot", "run-good.mmd", "run-good.svg"} <= set(write(with_run))
    dot = (with_run / "run-good.dot").read_text()
    assert ">good.jsonl: 2 events, complete in finalized<" in dot
    assert ">coverage: 3 of 12 states, 2 of 18 transitions<" in dot


def test_the_index_page_shows_every_picture_that_is_there(with_run):
    write(with_run)
    shown = re.findall(r"!\[.*?\]\((.*?)\)", (with_run / "README.md").read_text())
    assert sorted(shown) == sorted(path.name for path in with_run.glob("*.svg"))


def test_what_was_just_written_is_up_to_date(with_run):
    write(with_run)
    assert outdated(with_run) == []


def test_no_program_is_needed_to_know_what_is_up_to_date(with_run, monkeypatch):
    write(with_run)
    monkeypatch.setenv("LIFECYCLE_DOT", "/no/such/dot")
    assert outdated(with_run) == []


@pytest.mark.parametrize("name", ["training.dot", "training.mmd", "README.md", "run-good.dot"])
def test_a_text_that_differs_is_outdated(with_run, name):
    write(with_run)
    (with_run / name).write_bytes((with_run / name).read_bytes() + b"\n")
    assert outdated(with_run) == [name]


def test_another_svg_is_not_outdated(with_run):
    write(with_run)
    (with_run / "training.svg").write_text("<svg/>")
    assert outdated(with_run) == []


@pytest.mark.parametrize("name", ["training.dot", "basic.svg", "README.md"])
def test_what_is_missing_is_outdated(with_run, name):
    write(with_run)
    (with_run / name).unlink()
    assert outdated(with_run) == [name]


def test_what_is_no_longer_drawn_is_outdated(with_run):
    write(with_run)
    (with_run / "runs" / "good.jsonl").unlink()
    assert outdated(with_run) == ["README.md", "run-good.dot", "run-good.mmd", "run-good.svg"]


def test_everything_is_outdated_where_nothing_is(tmp_path):
    assert len(outdated(tmp_path)) == 3 * len(protocols.BUILT_IN) + 1


def test_a_bad_run_is_an_error_and_nothing_is_written(with_run):
    (with_run / "runs" / "bad.jsonl").write_text("no trace")
    with pytest.raises(TraceFormatError):
        write(with_run)
    assert [path.name for path in with_run.iterdir()] == ["runs"]
