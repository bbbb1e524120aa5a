"""``lifecycle next``: what is legal in a state."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from lifecycle import protocols
from lifecycle.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["next", *arguments])


def test_the_events_of_a_state_are_shown_with_their_guards_and_targets():
    done = run("session.ready", "--protocol", "training")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "BATCH_START -> session.batch.started",
        "FINALIZE [counts as expected] -> finalized",
        "shortest way to the end: FINALIZE",
    ]


def test_the_default_is_compression():
    assert "CALIBRATION_EPOCH_START -> session.calibration.open" in run("session.ready").output


def test_at_the_end_nothing_is_legal():
    assert run("finalized").output == "the run is over\n"


@pytest.mark.parametrize("protocol", protocols.BUILT_IN.values(), ids=lambda protocol: protocol.name)
def test_every_state_of_every_protocol_can_be_shown(protocol):
    for state in protocol.states:
        shown = run(state, "--protocol", protocol.name).output.splitlines()[:-1]
        assert [line.split()[0] for line in shown] == [event.name for event in protocol.allowed(state)]


def test_a_protocol_may_be_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(
        "from lifecycle import Protocol, Transition\n"
        "ONE = Protocol('one', ['a', 'b'], [Transition('a', 'initialize', 'b')], 'a', ['b'])\n"
    )
    assert run("a", "--protocol", "own.py:ONE").output == "INITIALIZE -> b\nshortest way to the end: INITIALIZE\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["session.redy"], "'session.redy' is not a state of protocol 'compression'; did you mean 'session.ready'?"),
        (["created", "--protocol", "basik"], "'basik' is not a built-in protocol; did you mean 'basic'?"),
    ],
)
def test_bad_input_is_status_2_and_one_line(arguments, message):
    done = run(*arguments)
    assert (done.exit_code, done.output) == (2, f"Error: {message}\n")
