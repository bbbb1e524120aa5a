"""What a violation most likely was: single choices, and how often the truth is named."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import sequences
from traces import only_run

from lifecycle import protocols
from lifecycle.trace.checking import causes as module
from lifecycle.trace.checking.causes import Cause, Causes, described

STRICT = [name for name in protocols.BUILT_IN if name != "upstream"]


def events(word):
    return tuple(sequences.events(word))


def find(protocol, before, event, after=""):
    """The causes of an event that is illegal after a word."""
    protocol = protocols.get(protocol)
    state, past = protocol.initial, []
    for each in events(before):
        past.append((state, each))
        state = protocol.target(state, each)
    (illegal,) = events(event)
    return Causes(protocol).find(past[-module.LOOK_BACK :], state, illegal, events(after))


def missing(word, back=0):
    return Cause("missing", back, events(word))


@pytest.mark.parametrize(
    ("protocol", "before", "event", "after", "cause"),
    [
        ("training", "", "B", "LEF", missing("I")),
        ("training", "I", "P", "OEF", missing("BL")),
        ("training", "IBLP", "B", "LEF", missing("OE")),
        ("training", "I", "I", "BLEF", Cause("superfluous", 0)),
        ("training", "IF", "B", "", Cause("superfluous", 0)),
        ("training", "IBL", "O", "PEF", Cause("swapped", -1)),
        ("compression", "IB", "C", "EKF", Cause("swapped", 1)),
        ("compression", "IB", "E", "SKF", missing("C", 1)),
        ("compression", "IBLE", "K", "F", missing("C")),
        ("basic", "ICS", "B", "EBESKF", Cause("superfluous", 1)),
        ("sequential", "ICBE", "K", "F", missing("S")),
    ],
)
def test_the_cheapest_explanation_is_taken(protocol, before, event, after, cause):
    assert find(protocol, before, event, after)[0] == cause


def test_what_comes_after_decides_before_the_length_of_an_explanation():
    assert find("training", "IB", "O", "EF")[0] == missing("LP")
    assert find("training", "IB", "O", "LPOEF")[0] == Cause("superfluous", 0)


def test_of_explanations_that_cost_as_much_inserting_goes_before_dropping_and_all_are_given():
    assert find("sequential", "ICB", "B", "ESKF") == (missing("E"), Cause("superfluous", 0))


def test_of_two_events_that_are_alike_only_one_is_said_to_be_superfluous():
    assert find("training", "I", "I", "BLEF") == (Cause("superfluous", 0),)


def test_only_a_few_alternatives_are_given():
    assert len(find("compression", "ICBEBEBEBEK", "S", "F")) <= 1 + module.ALTERNATIVES


def test_a_violation_that_comes_again_is_explained_from_memory(monkeypatch):
    causes = Causes(protocols.TRAINING)
    first = causes.find((), "session.ready", events("I")[0], ())
    monkeypatch.setattr(Causes, "_find", None)
    assert causes.find((), "session.ready", events("I")[0], ()) is first


def test_the_memory_for_explanations_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 3)
    causes = Causes(protocols.TRAINING)
    for letter in "ILPOE":
        causes.find((), "session.ready", events(letter)[0], ())
        assert len(causes._known) <= 3


@pytest.mark.parametrize(
    ("cause", "text"),
    [
        (missing("C"), "CALIBRATION_EPOCH_START is missing before it"),
        (missing("CB"), "CALIBRATION_EPOCH_START, BATCH_START are missing before it"),
        (missing("C", 2), "CALIBRATION_EPOCH_START is missing before BATCH_START in line 11"),
        (Cause("superfluous", 0), "it is superfluous"),
        (Cause("superfluous", 1), "LOSS_CALCULATED in line 12 is superfluous"),
        (Cause("swapped", -1), "it and OPTIM_PRE_STEP in line 14 have changed places"),
        (Cause("swapped", 1), "it and LOSS_CALCULATED in line 12 have changed places"),
        (Cause("swapped", 2), "BATCH_START in line 11 and LOSS_CALCULATED in line 12 have changed places"),
    ],
)
def test_every_cause_can_be_said(cause, text):
    places = list(zip(events("BLOP"), range(11, 15), strict=True))
    assert described(cause, places, 2) == text


# How often the truth is named


def random_run(protocol, rng, length):
    """A complete run: legal events at random, then the shortest way to the end."""
    state, run = protocol.initial, []
    while len(run) < length:
        event = rng.choice([each for each in protocol.allowed(state) if each.name != "FINALIZE"])
        run.append(event)
        state = protocol.target(state, event)
    return [*run, *next(path for path, reached in protocol.walk(state) if reached in protocol.final)]


def damaged(run, how, rng):
    """A run with one mistake in it, neither at its first nor at its last event, and where that is."""
    at = rng.randrange(1, len(run) - 2)
    left, event, following, right = run[:at], run[at], run[at + 1], run[at + 2 :]
    return at, {
        "dropped": [*left, following, *right],
        "doubled": [*left, event, event, following, *right],
        "swapped": [*left, following, event, *right],
    }[how]


def names(violation, how, event, at):
    """Whether a violation says what was done, and where."""
    if how == "dropped":
        return violation.missing == (event,) and violation.where == at + 1
    if how == "doubled":
        return violation.kind == "superfluous" and violation.where in {at + 1, at + 2}
    return violation.kind == "swapped" and violation.where == at + 1


IN_WORDS = {"dropped": "missing before", "doubled": "superfluous", "swapped": "changed places"}


def tally(how, runs=50, seed=0):
    """What becomes of single mistakes in random runs of all strict protocols."""
    rng = random.Random(seed)  # noqa: S311 # runs, not secrets
    found = Counter()
    for name in STRICT:
        protocol = protocols.get(name)
        for _ in range(runs):
            run = random_run(protocol, rng, rng.randint(8, 40))
            at, events = damaged(run, how, rng)
            checked = only_run(*({"event": event.value} for event in events), protocol=protocol)
            if protocol.accepts(events):
                assert checked.verdict == "conforms"
                found["legal"] += 1
                continue
            found["illegal"] += 1
            found["cascades"] += checked.violation_count > 1
            first = checked.violations[0]
            named = names(first, how, run[at], at)
            found["named"] += named
            found["named or given"] += named or any(IN_WORDS[how] in each for each in first.alternatives)
    return found


@pytest.mark.parametrize(
    ("how", "cascading", "named", "given"),
    [("dropped", 0.01, 0.95, 0.98), ("doubled", 0.01, 0.5, 0.98), ("swapped", 0.01, 0.9, 0.95)],
)
def test_a_single_mistake_in_a_random_run_is_one_violation_and_is_named(how, cascading, named, given):
    found = tally(how)
    illegal = found["illegal"]
    assert illegal > 200
    assert found["cascades"] <= cascading * illegal
    assert found["named"] >= named * illegal
    assert found["named or given"] >= given * illegal
