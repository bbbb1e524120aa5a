import pytest
from click.testing import CliRunner
from drawing import GRAPHVIZ, PDF, PNG, program

from lifecycle import Lifecycle, protocols
from lifecycle.cli import main
from lifecycle.diagram import picture, to_dot, to_mermaid, to_svg, to_table
from lifecycle.trace import Journal

CODE = f"sys.stdout.buffer.write({{'-Tsvg': {GRAPHVIZ!r}, '-Tpng': {PNG!r}, '-Tpdf': {PDF!r}}}[sys.argv[1]])"


@pytest.fixture(autouse=True)
def drawing(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFECYCLE_DOT", str(program(tmp_path, CODE)))
    monkeypatch.chdir(tmp_path)


def draw(*arguments, status=0):
    result = CliRunner().invoke(main, ["draw", *arguments])
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def test_the_default_is_the_default_protocol_as_svg_on_standard_output():
    assert draw().output == to_svg(picture(protocols.COMPRESSION))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("dot", to_dot(picture(protocols.TRAINING))),
        ("mermaid", to_mermaid(picture(protocols.TRAINING))),
        ("table", to_table(protocols.TRAINING)),
    ],
)
def test_a_format_can_be_asked_for(kind, content):
    assert draw("training", "--format", kind).output == content


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.dot", to_dot(picture(protocols.TRAINING)).encode()),
        ("x.GV", to_dot(picture(protocols.TRAINING)).encode()),
        ("x.mmd", to_mermaid(picture(protocols.TRAINING)).encode()),
        ("x.mermaid", to_mermaid(picture(protocols.TRAINING)).encode()),
        ("x.md", to_table(protocols.TRAINING).encode()),
        ("x.png", PNG),
        ("x.pdf", PDF),
    ],
)
def test_the_ending_of_the_file_says_the_format(tmp_path, name, content):
    assert draw("training", "-o", name).output == ""
    assert (tmp_path / name).read_bytes() == content


def test_an_svg_file_holds_the_svg(tmp_path):
    draw("training", "-o", "x.svg")
    assert (tmp_path / "x.svg").read_text() == to_svg(picture(protocols.TRAINING))


def test_an_explicit_format_is_stronger_than_the_ending(tmp_path):
    draw("training", "-o", "x.txt", "--format", "mermaid")
    assert (tmp_path / "x.txt").read_text() == to_mermaid(picture(protocols.TRAINING))


def test_an_unknown_ending_is_bad_input():
    assert "x.gif: the ending is none of .svg, .png" in draw("-o", "x.gif", status=2).output


def test_theme_and_direction_are_followed():
    drawn = to_dot(picture(protocols.BASIC), theme="dark", direction="LR")
    assert draw("basic", "--format", "dot", "--theme", "dark", "--direction", "LR").output == drawn


def test_a_protocol_of_ones_own_is_drawn(tmp_path):
    (tmp_path / "own.py").write_text("from lifecycle import protocols\nmine = protocols.BASIC.extend('mine')")
    assert draw("own.py:mine", "--format", "mermaid").output.splitlines()[1] == "    accTitle: mine lifecycle"


def test_a_run_is_drawn_on_top(tmp_path):
    (tmp_path / "run.jsonl").write_text('{"event": "INITIALIZE"}\n{"event": "FINALIZE"}\n')
    assert "s0 --> s1 : INITIALIZE (1x)" in draw("training", "--trace", "run.jsonl", "--format", "mermaid").output
    assert "| 1x    |" in draw("training", "--trace", "run.jsonl", "--format", "table").output


@pytest.mark.parametrize(
    ("options", "name"), [({}, "training"), ({"invocations_per_step": 2}, "training+repeat_steps")]
)
def test_a_journal_is_drawn_over_the_protocol_that_it_was_written_with(options, name):
    lc = Lifecycle("training", **options)
    with Journal("run.jsonl") as journal:
        lc.attach(journal)
        with lc.session():
            pass
    assert f"accTitle: {name} lifecycle" in draw("--trace", "run.jsonl", "--format", "mermaid").output
    assert "accTitle: basic lifecycle" in draw("basic", "--trace", "run.jsonl", "--format", "mermaid").output


def test_another_trace_is_drawn_over_the_default_protocol(tmp_path):
    (tmp_path / "run.jsonl").write_text('{"event": "INITIALIZE"}\n')
    assert "accTitle: compression lifecycle" in draw("--trace", "run.jsonl", "--format", "mermaid").output


def test_a_journal_of_a_protocol_of_ones_own_needs_its_name():
    with Journal("run.jsonl") as journal:
        lc = Lifecycle(protocols.BASIC.extend("mine"))
        lc.attach(journal)
        lc.initialize()
    problem = "written with protocol 'mine', which is not built in; say where it is, as FILE.py:NAME"
    assert problem in draw("--trace", "run.jsonl", status=2).output


def test_a_run_can_come_from_standard_input():
    result = CliRunner().invoke(
        main, ["draw", "training", "--trace", "-", "--format", "mermaid"], input='{"event": "INITIALIZE"}\n'
    )
    assert "s0 --> s1 : INITIALIZE (1x)" in result.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["trainng"], "'trainng' is not a built-in protocol; did you mean 'training'?"),
        (["none.py:x"], "none.py"),
        (["--trace", "none.jsonl"], "none.jsonl"),
        (["-o", "no/such/folder/x.svg"], "no/such/folder/x.svg"),
        (["--check"], "--check needs --all"),
        (["--format", "gif"], "'gif' is not one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, problem):
    assert problem in draw(*arguments, status=2).output


def test_a_missing_program_is_one_line_and_writes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFECYCLE_DOT", "/no/such/dot")
    assert draw("-o", "x.svg", status=2).output == (
        "Error: LIFECYCLE_DOT is '/no/such/dot', which is not a program; name the `dot` of Graphviz, or unset it\n"
    )
    assert not (tmp_path / "x.svg").exists()


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_terminal_is_not_flooded_with_bytes(monkeypatch, kind):
    monkeypatch.setattr("lifecycle.cli.draw.is_terminal", lambda: True)
    assert f"a terminal cannot show {kind}; name a file with -o" in draw("--format", kind, status=2).output


def test_bytes_go_to_a_pipe():
    assert draw("--format", "png").stdout_bytes == PNG


def test_all_are_drawn_and_checked():
    assert draw("--all").output == "22 files in diagrams\n"
    assert draw("--all", "--check").output == "diagrams: up to date\n"


def test_another_folder_can_be_asked_for(tmp_path):
    assert draw("--all", "-o", "pictures").output == "22 files in pictures\n"
    assert (tmp_path / "pictures" / "training.svg").exists()


def test_outdated_files_are_named_and_the_status_is_1(tmp_path):
    draw("--all")
    (tmp_path / "diagrams" / "basic.dot").write_text("")
    (tmp_path / "diagrams" / "basic.mmd").unlink()
    assert draw("--all", "--check", status=1).output == (
        "diagrams: not what the code draws: basic.dot, basic.mmd; `lifecycle draw --all -o diagrams` draws them\n"
    )
