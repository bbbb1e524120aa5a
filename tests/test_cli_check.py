"""``lifecycle check``: verdicts, exit statuses, formats, and files that grow while they are watched."""

from __future__ import annotations

import gzip
import io
import json
import os

import pytest
from click.testing import CliRunner
from traces import DATA, lines

from lifecycle.cli import check as module
from lifecycle.cli import main

CRASHED = DATA / "oneshot_CRASH_sequential_gptq_w4a16.jsonl"
TRAINING = DATA / "llmc06_train_ga1_n3_constprune.jsonl"
SEQUENTIAL = DATA / "oneshot_sequential_gptq_w8a8.jsonl"
INFO = "2026-11-22 16:58:36.458 | INFO     | llmcompressor.core.lifecycle:reset:71 - Compression lifecycle reset\n"

OWN = """
from lifecycle import Protocol, Transition

ONE = Protocol("one", ["a", "b"], [Transition("a", "initialize", "b")], "a", ["b"])
BROKEN = Protocol("broken", ["a"], [], "a", []) if {broken} else None
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments, stdin=None):
        return CliRunner().invoke(main, ["check", *map(str, arguments)], input=stdin)

    return run


@pytest.fixture
def trace(tmp_path):
    def write(*rows, name="run.jsonl"):
        path = tmp_path / name
        path.write_bytes(lines(*rows).getvalue())
        return path.name

    return write


# Verdicts and exit statuses


def test_a_run_that_is_fine_is_status_0(run, trace):
    done = run(trace("ICSKF"))
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "run.jsonl: run 1 conforms to compression")


def test_violations_are_status_1(run):
    done = run(TRAINING, "--protocol", "training")
    assert done.exit_code == 1
    assert "  line 2: INITIALIZE is not allowed in session.ready" in done.output.splitlines()
    assert run(TRAINING, "--protocol", "upstream").exit_code == 0


def test_a_run_that_did_not_end_is_status_1_unless_that_is_allowed(run):
    done = run(CRASHED)
    assert done.exit_code == 1
    assert "the handler of SEQUENTIAL_EPOCH_END failed in line 5: RuntimeError" in done.output
    assert run(CRASHED, "--allow-incomplete").exit_code == 0


def test_violations_in_a_run_that_did_not_end_are_not_allowed(run, trace):
    assert run(trace("II"), "--allow-incomplete").exit_code == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a trace", "run, line 1: not a JSON object: 'not a trace'"),
        (b"", "run, line 1: empty, so there is no event in it"),
        (INFO.encode(), "run, line 1: this log was not written at DEBUG, so the events are not in it; "),
        (gzip.compress(b"x" * 100)[:-3], "run, line 1: the compressed data ends too early"),
    ],
)
def test_what_is_no_trace_is_status_2_and_one_line(run, tmp_path, content, message):
    (tmp_path / "run").write_bytes(content)
    done = run("run")
    assert done.exit_code == 2
    assert done.output.startswith(f"Error: {message}")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.jsonl"], "[Errno 2] No such file or directory: 'no.jsonl'"),
        (["run.jsonl", "--protocol", "trainin"], "'trainin' is not a built-in protocol; did you mean 'training'?"),
        (["run.jsonl", "--protocol", "no.py:ONE"], "[Errno 2] No such file or directory: 'no.py'"),
        (["run.jsonl", "--expect", "layers=3"], "expect: 'layers' is not a count; known: "),
        (["run.jsonl", "--expect", "steps"], "--expect needs NAME=COUNT, got 'steps'"),
        (["run.jsonl", "--expect", "steps=-1"], "--expect needs NAME=COUNT, got 'steps=-1'"),
        (["run.jsonl", "--expect", "steps=1,=2"], "--expect needs NAME=COUNT, got '=2'"),
        (["run.jsonl", "--expect", ""], "--expect needs NAME=COUNT, got ''"),
        (["run.jsonl", "--repeat-steps", "--protocol", "basic"], "protocol 'basic' has no optimizer events"),
        (["run.jsonl", "run.jsonl", "--follow"], "--follow watches one file, got 2"),
    ],
)
def test_bad_input_is_status_2_and_one_line(run, trace, arguments, message):
    trace("IF")
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.output.startswith(f"Error: {message}")
    assert done.output.count("\n") == 1


def test_no_file_is_bad_input(run):
    assert run().exit_code == 2


def test_a_folder_is_bad_input(run, tmp_path):
    (tmp_path / "folder").mkdir()
    done = run("folder")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


# Options


def test_standard_input_is_a_dash(run):
    done = run("-", stdin=lines("IF").getvalue())
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "<stdin>: run 1 conforms to compression")


def test_compressed_files_are_read(run, tmp_path):
    (tmp_path / "run.gz").write_bytes(gzip.compress(SEQUENTIAL.read_bytes()))
    assert run("run.gz").exit_code == 0


def test_auto_names_the_smallest_protocols(run, trace):
    assert run(trace("IF"), "--protocol", "auto").output.startswith(
        "run.jsonl: run 1 conforms to data_free, sequential, training\n"
    )


def test_a_protocol_may_be_in_a_file(run, trace, tmp_path):
    (tmp_path / "own.py").write_text(OWN.format(broken=False))
    assert run(trace("I"), "--protocol", "own.py:ONE").output.startswith("run.jsonl: run 1 conforms to one\n")
    (tmp_path / "own.py").write_text(OWN.format(broken=True))
    done = run(trace("I"), "--protocol", "own.py:ONE")
    assert (done.exit_code, done.output.count("\n")) == (2, 1)


def test_steps_may_be_repeated(run, trace):
    assert run(trace("IBLPOPOEF")).exit_code == 1
    assert run("run.jsonl", "--repeat-steps").exit_code == 0


def test_counts_may_be_expected(run, trace):
    trace("ICBESBESKF")
    assert run("run.jsonl", "--expect", "sequential_epochs=2, batches=2").exit_code == 0
    done = run("run.jsonl", "--expect", "sequential_epochs=33,batches=512")
    assert done.exit_code == 1
    assert "hint: sequential_epochs: expected 33, counted 2; batches: expected 512, counted 2" in done.output


def test_names_may_be_strict(run, trace):
    assert run(trace("I?F")).exit_code == 0
    assert run("run.jsonl", "--strict-names").exit_code == 1


def test_json_is_one_object_on_a_line_for_each_trace(run, trace):
    done = run(trace("IF"), trace("II", name="other.jsonl"), "--format", "json")
    assert [(each["name"], each["ok"]) for each in map(json.loads, done.stdout.splitlines())] == [
        ("run.jsonl", True),
        ("other.jsonl", False),
    ]
    assert done.exit_code == 1


@pytest.mark.parametrize("option", ["--allow-incomplete", "--follow"])
def test_the_bytes_of_a_path_need_not_be_text(run, tmp_path, option):
    name = os.fsdecode(b"run\xff.jsonl")
    (tmp_path / name).write_bytes(lines("IF").getvalue())
    done = run(name, "--format", "json", option)
    assert (done.exit_code, json.loads(done.stdout)["name"]) == (0, "run?.jsonl")


def test_annotations_are_printed_for_github(run, trace):
    done = run(trace("IBLPEF"), trace("IF", name="fine.jsonl"), "--format", "github", "--protocol", "training")
    (line,) = done.stdout.splitlines()
    assert line.startswith("::error file=run.jsonl,line=5,title=line 5%3A BATCH_END is not allowed in session.batch.")
    allowed = run(trace("I"), "--format", "github", "--allow-incomplete")
    assert (allowed.exit_code, allowed.stdout.partition(" ")[0]) == (0, "::warning")


# Several files


def test_of_several_files_all_are_checked_and_the_worst_is_the_status(run, trace, tmp_path):
    (tmp_path / "bad.jsonl").write_bytes(b"no")
    done = run("bad.jsonl", trace("IF"), trace("I", name="open.jsonl"), "none.jsonl")
    assert done.exit_code == 2
    assert "run.jsonl: run 1 conforms to compression" in done.stdout
    assert done.stdout.splitlines()[-1] == "4 traces: 1 fine, 1 not, 2 bad input"
    assert done.stderr.splitlines() == [
        "Error: bad.jsonl, line 1: not a JSON object: 'no'",
        "Error: [Errno 2] No such file or directory: 'none.jsonl'",
    ]


@pytest.mark.parametrize(("terminal", "files"), [(True, 2), (True, 1), (False, 2)])
def test_many_files_show_a_progress_bar_on_a_terminal(run, trace, monkeypatch, terminal, files):
    drawn = []
    bar = module.click.progressbar

    def progressbar(*arguments, **options):
        drawn.append(options["label"])
        return bar(*arguments, **options)

    monkeypatch.setattr(module, "is_terminal", lambda: terminal)
    monkeypatch.setattr(module.click, "progressbar", progressbar)
    done = run(*[trace("IF")] * files)
    assert done.exit_code == 0
    assert drawn == (["Checking"] if terminal and files > 1 else [])
    assert done.stdout.count("conforms") == files


def test_a_test_is_no_terminal():
    assert not module.is_terminal()


# Files that grow


@pytest.fixture
def grow(trace, tmp_path, monkeypatch):
    """A file that grows by one piece each time that the command waits."""

    def grow(*pieces):
        name = trace(pieces[0])
        left = iter(pieces[1:])

        def sleep(seconds):
            assert seconds == module.POLL_SECONDS
            piece = next(left)
            if callable(piece):
                piece(tmp_path / name)
                return
            with (tmp_path / name).open("ab") as file:
                file.write(piece if isinstance(piece, bytes) else lines(piece).getvalue())

        monkeypatch.setattr(module.time, "sleep", sleep)
        return name

    return grow


def test_a_file_is_followed_until_its_run_ends(run, grow):
    done = run(grow("IC", "BE", "S", "KF"), "--follow")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "run.jsonl: run 1 conforms to compression")


def test_a_run_that_has_ended_already_is_not_waited_for(run, grow):
    assert run(grow("ICSKF"), "--follow").exit_code == 0


def test_a_line_is_read_when_it_is_whole(run, grow):
    done = run(grow("I", b'{"event": "FINAL', b'IZE"}\n'), "--follow")
    assert done.exit_code == 0


def test_an_abort_ends_a_run_too(run, grow):
    done = run(grow("I", "a"), "--follow")
    assert (done.exit_code, "is aborted" in done.output) == (1, True)


def test_a_violation_is_reported_as_soon_as_it_is_explained(run, grow):
    reported = []

    def look(path):
        reported.append(bool(path.exists()))

    done = run(grow("IBLEE", "BLEBLEBLE", look, "F"), "--follow", "--protocol", "training")
    found = done.output.splitlines()
    assert found[0] == "run.jsonl: line 5: BATCH_END is not allowed in session.ready"
    assert found[4] == "    hint: it is superfluous: it came twice"
    assert found[5] == "run.jsonl: run 1 violates training: 1 violation"
    assert reported == [True]


def test_a_violation_is_explained_by_what_there_is_when_nothing_comes(run, grow):
    waits = round(module.SETTLE_SECONDS / module.POLL_SECONDS) + 2
    done = run(grow("IBLO", *[b""] * waits, "PEF"), "--follow", "--protocol", "training")
    # The event after the next would have told that they have changed places.
    assert done.output.splitlines()[4] == "    hint: OPTIM_PRE_STEP is missing before it, or it is superfluous"
    assert done.exit_code == 1


def test_a_run_whose_last_event_is_a_violation_ends_when_nothing_comes(run, grow):
    waits = round(module.SETTLE_SECONDS / module.POLL_SECONDS) + 2
    done = run(grow("ICSF", *[b""] * waits), "--follow")
    assert "CALIBRATION_EPOCH_END is missing before it" in done.output


def test_only_text_is_reported_early(run, grow):
    done = run(grow("IBLEE", "BLEBLEBLE", "F"), "--follow", "--protocol", "training", "--format", "json")
    assert len(done.output.splitlines()) == 1


def test_a_file_that_becomes_shorter_is_bad_input(run, grow):
    done = run(grow("ICSK", lambda path: path.write_bytes(b"")), "--follow")
    assert (done.exit_code, done.output) == (2, "Error: run.jsonl became shorter while it was followed\n")


def test_whoever_has_seen_enough_gets_the_report_so_far(run, grow):
    def interrupt(path):
        raise KeyboardInterrupt

    done = run(grow("ICS", interrupt), "--follow")
    assert done.exit_code == 1
    assert done.output.startswith("run.jsonl: run 1 is incomplete")


def test_standard_input_is_followed_to_its_end(run):
    done = run("-", "--follow", stdin=lines("IF").getvalue())
    assert done.exit_code == 0
    assert run("-", "--follow", stdin=lines("I").getvalue()).exit_code == 1


def test_a_log_is_followed_too(run, tmp_path, monkeypatch):
    log = (DATA / "llmcompressor-0.14.0.1-sequential-gptq.log").read_bytes()
    half = len(log) // 2
    (tmp_path / "run.log").write_bytes(log[:half])
    file = io.BytesIO(log[half:])

    def sleep(seconds):
        with (tmp_path / "run.log").open("ab") as growing:
            growing.write(file.read(3000))

    monkeypatch.setattr(module.time, "sleep", sleep)
    assert run("run.log", "--follow", "--protocol", "sequential").exit_code == 0
