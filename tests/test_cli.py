import importlib
import json
import os
import runpy
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import lifecycle
from lifecycle.cli import COMMANDS, main
from lifecycle.cli.demo import _position


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_help_lists_every_command_with_what_it_does(run):
    done = run("--help")
    assert done.exit_code == 0
    for name, text in COMMANDS.items():
        assert name in done.output
        assert text.split()[0] in done.output


def test_help_imports_no_command():
    code = "import sys; from lifecycle.cli import main; main(['-h'], standalone_mode=False); "
    code += "print([name for name in sys.modules if name.startswith(('lifecycle.cli.', 'lifecycle.trace', 'msgspec'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_package(run):
    assert run("--version").output == f"lifecycle, version {lifecycle.__version__}\n"


def test_an_unknown_command_is_bad_input(run):
    done = run("frobnicate")
    assert done.exit_code == 2
    assert "No such command 'frobnicate'" in done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    done = run(name, "--help")
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_an_error_of_the_library_is_one_line_and_bad_input(run, monkeypatch):
    @click.command
    def command():
        raise lifecycle.ProtocolError("'x' is not a protocol")

    monkeypatch.setattr("lifecycle.cli.next.command", command)
    done = run("next")
    assert (done.exit_code, done.output) == (2, "Error: 'x' is not a protocol\n")


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "lifecycle", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith(f"version {lifecycle.__version__}\n")


def test_the_demo_does_the_whole_job_and_ends_with_a_mistake(run, tmp_path):
    done = run("demo")
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert "50% of the weights removed, in 16 prunings from epoch 10 to 25" in lines
    assert "IllegalEventError: BATCH_END is not allowed in session.batch.step.pending" in lines
    assert lines[-1] == "  hint: OPTIM_POST_STEP is missing before it"
    rows = [json.loads(line) for line in (tmp_path / "lifecycle-demo.jsonl").read_text().splitlines()]
    names = [row["event"] for row in rows[1:]]
    layer = ["batch_start", "batch_end"] * 8 + ["sequential_epoch_end"]
    step = ["batch_start", "loss_calculated", "optim_pre_step", "optim_post_step", "batch_end"]
    calibration = ["calibration_epoch_start", *layer * 3, "calibration_epoch_end"]
    assert names == ["initialize", *calibration, *step * 800, "finalize"]


def test_the_journal_of_the_demo_is_a_run_in_order(run):
    # Twice: the second begins it anew.
    run("demo", "--journal", "here.jsonl")
    run("demo", "--journal", "here.jsonl")
    assert run("check", "here.jsonl").exit_code == 0


def test_a_journal_that_cannot_be_written_is_bad_input(run):
    done = run("demo", "--journal", "missing/here.jsonl")
    assert done.exit_code == 2
    assert "missing/here.jsonl" in done.output


def test_the_module_runs_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lifecycle", "--version"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("lifecycle", run_name="__main__")
    assert caught.value.code == 0
    assert lifecycle.__version__ in capsys.readouterr().out


def test_shell_completion_knows_the_commands():
    assert main.list_commands(click.Context(main)) == sorted(COMMANDS)


def test_the_progress_line_of_the_demo_says_where_the_run_is():
    assert _position(lifecycle.Event(steps_per_epoch=20, global_step=30)) == "step 30, epoch 1.5"
    assert _position(None) == ""


def test_importing_the_module_runs_nothing():
    assert importlib.import_module("lifecycle.__main__").main is main


def test_a_reader_that_has_enough_is_no_error():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "lifecycle", "protocols"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_broken_pipe_is_left_to_click_which_ends_quietly(monkeypatch):
    def closed(*arguments, **options):
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", closed)
    with pytest.raises(BrokenPipeError):
        main.main(["protocols"], standalone_mode=False)
