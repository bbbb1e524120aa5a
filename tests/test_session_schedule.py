"""When a modifier starts, is updated and ends, against an oracle that looks at the whole word with exact numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import acceptor
import pytest
import sequences
from hypothesis import example, given
from hypothesis import strategies as st
from recording import Recorder, fire
from runs import complete_runs, unhurried

from lifecycle import protocols
from lifecycle.session import CompressionSession

PER_EVENT = {
    "C": "on_calibration_epoch_start",
    "S": "on_sequential_epoch_end",
    "K": "on_calibration_epoch_end",
}


@dataclass
class Times:
    """A schedule in exact steps, and as the user writes it."""

    start: Fraction | None
    end: Fraction | None
    update: Fraction | None
    written: dict[str, Any]


@dataclass
class Run:
    protocol: str
    word: str
    skipped: frozenset[int]
    options: dict[str, Any]
    schedules: list[Times]

    def session(self):
        modifiers = [Recorder(f"m{at}", **times.written) for at, times in enumerate(self.schedules)]
        return CompressionSession(modifiers, self.protocol, **self.options)


def expected(run, times):
    """The calls of a modifier's hooks: at which event of the word, and in which step."""
    invocations = run.options["invocations_per_step"]
    batches = run.options["batches_per_step"]
    steps = [
        acceptor.counted(run.word[: at + 1], run.skipped, invocations_per_step=invocations, batches_per_step=batches)[
            "global_step"
        ]
        for at in range(len(run.word))
    ]
    begins, ends = acceptor.positions(run.word, "B"), acceptor.positions(run.word, "E")
    start = next((at for at in begins if times.start is None or steps[at] >= times.start), len(run.word))
    over = (at for at in ends if times.end is not None and at > start and steps[at] >= times.end)
    end = next(over, len(run.word))

    def is_due(step):
        within = (times.start is None or step >= times.start) and (times.end is None or step <= times.end)
        return within and (not times.update or (step / times.update).denominator == 1)

    first_of_step = {}
    for at in begins:
        if start <= at < end:
            first_of_step.setdefault(steps[at], at)
    updates = {at for step, at in first_of_step.items() if is_due(step)}

    calls = []
    for at, letter in enumerate(run.word):
        hooks = {"I": ["on_initialize"], "F": ["on_finalize"]}.get(letter, ["on_event"])
        hooks += ["on_start"] * (at == start) + ["on_update"] * (at in updates) + ["on_end"] * (at == end)
        hooks += [PER_EVENT[letter]] if letter in PER_EVENT else []
        calls += [(hook, steps[at], run.word[: at + 1].count("E")) for hook in hooks]
    return calls


def found(modifier):
    return [detail[:3] for detail in modifier.details if detail[0] != "load_state_dict"]


def written(draw, steps, steps_per_epoch):
    """A number of steps as a user may write it, in epochs or in steps, and off by rounding."""
    if steps is None or steps_per_epoch is None:
        whole = steps is not None and steps.denominator == 1
        return steps if steps is None else int(steps) if whole and draw(st.booleans()) else float(steps)
    ways = [float(steps) / steps_per_epoch, float(steps) * (1 / steps_per_epoch)]
    if steps.denominator == 1:
        ways.append(sum([1 / steps_per_epoch] * int(steps), 0.0))
    return draw(st.sampled_from(ways))


halves = st.integers(0, 24).map(lambda numerator: Fraction(numerator, 2))
whole = st.integers(0, 12).map(Fraction)


@st.composite
def schedules(draw, steps_per_epoch):
    start = draw(st.none() | whole | halves)
    end = draw(st.none() | st.builds(Fraction.__add__, st.just(start or Fraction(0)), whole | halves))
    update = draw(st.none() | whole | halves)
    exact = {"start": start, "end": end, "update": update}
    return Times(**exact, written={name: written(draw, value, steps_per_epoch) for name, value in exact.items()})


accumulated = st.lists(st.integers(1, 4), max_size=12).map(
    lambda groups: "I" + "".join("BLE" * (group - 1) + "BLPOE" for group in groups) + "F"
)


@st.composite
def session_runs(draw):
    name = draw(st.sampled_from(["training", "basic", "sequential", "compression"]))
    optimizing = name in {"training", "compression"}
    invocations = draw(st.sampled_from([1, 1, 2, 3])) if optimizing else 1
    protocol = protocols.get(name)
    obeyed = protocol.repeat_steps() if invocations > 1 else protocol
    words = complete_runs(obeyed).map(sequences.letters)
    word = draw(words | accumulated if optimizing else words)
    skippable = acceptor.positions(word, "O")
    skipped = draw(st.sets(st.sampled_from(skippable), max_size=2)) if skippable else set()
    steps_per_epoch = draw(st.sampled_from([None, None, 1, 2, 3, 7, 10]))
    options = {
        "steps_per_epoch": steps_per_epoch,
        "batches_per_step": draw(st.none() | st.integers(1, 3)),
        "invocations_per_step": invocations,
    }
    times = draw(st.lists(schedules(steps_per_epoch), min_size=1, max_size=3))
    return Run(name, word, frozenset(skipped), options, times)


TENTHS = Run(
    "training",
    "I" + "BLPOE" * 8 + "F",
    frozenset(),
    {"steps_per_epoch": 10, "batches_per_step": None, "invocations_per_step": 1},
    [Times(Fraction(3), Fraction(6), Fraction(3), {"start": 0.1 * 3, "end": 0.6, "update": 0.1 * 3})],
)


@unhurried
@example(run=TENTHS)
@given(run=session_runs())
def test_every_modifier_starts_updates_and_ends_when_the_oracle_says(run):
    session = run.session()
    fire(session, run.word, run.skipped)
    assert [found(modifier) for modifier in session.modifiers] == [expected(run, times) for times in run.schedules]


def interrupted(run, cuts):
    """The calls of the hooks of a run that goes on in a new session, from a file, after each of the cuts."""
    session = run.session()
    calls = [[] for _ in run.schedules]
    for begin, end in zip([0, *cuts], [*cuts, len(run.word)], strict=True):
        fire(session, run.word[begin:end], {at - begin for at in run.skipped})
        for before, modifier in zip(calls, session.modifiers, strict=True):
            before.extend(found(modifier))
        if end < len(run.word):
            saved = json.dumps(session.state_dict())
            session = run.session()
            session.resume(json.loads(saved), model="a new one")
            for modifier in session.modifiers:
                modifier.details.clear()
    return calls, session


@unhurried
@given(run=session_runs(), data=st.data())
def test_a_run_that_is_saved_and_resumed_calls_what_the_whole_run_calls(run, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(run.word) - 1), max_size=3)))
    calls, session = interrupted(run, cuts)
    assert calls == [expected(run, times) for times in run.schedules]
    assert session.lifecycle.status == "finalized"


SCHEDULES = {
    "from the first batch": {},
    "in steps": {"start": 2, "end": 5, "update": 2},
    "one step": {"start": 3, "end": 3},
    "never": {"start": 100},
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_a_run_can_be_resumed_at_every_point(schedule):
    exact = {name: None if name not in schedule else Fraction(schedule[name]) for name in ("start", "end", "update")}
    options = {"steps_per_epoch": None, "batches_per_step": 2, "invocations_per_step": 1}
    word = "IBLEBLPOECBESBLEBEKBLEBLPOEBLPOECSKBLPOEF"
    run = Run("compression", word, frozenset(), options, [Times(**exact, written=schedule)])
    whole_run = [expected(run, run.schedules[0])]
    assert [at for at in range(len(word)) if interrupted(run, [at])[0] != whole_run] == []


# A few by hand, so that the oracle is not the only witness


def steps_of(modifier, hook):
    return [detail[1] for detail in modifier.details if detail[0] == hook]


def test_a_schedule_in_steps():
    modifier = Recorder(start=2, end=6, update=2)
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 9 + "F")
    assert steps_of(modifier, "on_start") == [2]
    assert steps_of(modifier, "on_update") == [2, 4]
    assert steps_of(modifier, "on_end") == [6]


def test_a_schedule_in_epochs_that_are_off_by_rounding():
    modifier = Recorder(start=0.1 * 3, end=0.7 + 0.1, update=0.1)
    fire(CompressionSession([modifier], "training", steps_per_epoch=10), "I" + "BLPOE" * 10 + "F")
    assert steps_of(modifier, "on_start") == [3]
    assert steps_of(modifier, "on_update") == [3, 4, 5, 6, 7]
    assert steps_of(modifier, "on_end") == [8]


def test_a_modifier_is_updated_once_in_a_step_of_several_batches():
    modifier = Recorder()
    fire(CompressionSession([modifier], "training"), "I" + "BLEBLEBLPOE" * 2 + "F")
    assert [detail[:3] for detail in modifier.details if detail[0] == "on_update"] == [
        ("on_update", 0, 0),
        ("on_update", 1, 3),
    ]


def test_a_modifier_that_begins_and_ends_in_one_step_works_for_one_batch():
    modifier = Recorder(start=1, end=1)
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 3)
    assert [detail[:2] for detail in modifier.details if detail[0] in {"on_start", "on_update", "on_end"}] == [
        ("on_start", 1),
        ("on_update", 1),
        ("on_end", 2),
    ]


@pytest.mark.parametrize("end", [None, float("inf")])
def test_a_modifier_without_an_end_never_ends(end):
    modifier = Recorder(end=end)
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 3 + "F")
    assert "m.on_end" not in modifier.calls


def test_a_modifier_that_has_not_started_does_not_end():
    modifier = Recorder(start=2, end=2)
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 2)
    assert steps_of(modifier, "on_end") == []
    assert "m.on_start" not in modifier.calls


def test_a_skipped_step_does_not_move_a_schedule():
    modifier = Recorder(start=1)
    fire(CompressionSession([modifier], "training"), "I" + "BLPOE" * 3, skipped={4})
    assert [detail[:3] for detail in modifier.details if detail[0] == "on_start"] == [("on_start", 1, 2)]


def test_a_modifier_in_two_sessions_has_a_schedule_in_each():
    modifier = Recorder(start=1)
    first, second = (CompressionSession([modifier], "training") for _ in range(2))
    fire(first, "I" + "BLPOE" * 2)
    fire(second, "I" + "BLPOE" * 2)
    assert steps_of(modifier, "on_start") == [1, 1]


def test_a_schedule_begins_again_with_a_new_run():
    modifier = Recorder(start=1, end=2)
    session = CompressionSession([modifier], "training")
    for _ in range(2):
        fire(session, "I" + "BLPOE" * 3 + "F")
        session.reset()
    assert (steps_of(modifier, "on_start"), steps_of(modifier, "on_end")) == ([1, 1], [2, 2])
