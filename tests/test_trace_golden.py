"""Damage that was done to legal runs, and what the checker says it was."""

from __future__ import annotations

import pytest
from traces import only_run, said

TRAIN = "IBLPOEBLPOEBLPOEF"
LAYERS = "ICBESBESBESKF"
MIXED = "ICBESKBLPOEBLPOEF"

CASES = {
    "an event dropped": (
        "training",
        "IBLPOEBPOEBLPOEF",
        [(8, "LOSS_CALCULATED is missing before it")],
    ),
    "an event dropped whose lack shows later": (
        "compression",
        "IBESKBLPOEBLPOEF",
        [(3, "CALIBRATION_EPOCH_START is missing before BATCH_START in line 2")],
    ),
    "the end of a batch dropped": (
        "sequential",
        "ICBESBSBESKF",
        [(7, "BATCH_END is missing before it")],
    ),
    "an event doubled": (
        "training",
        "IBLPOEBBLPOEBLPOEF",
        [(8, "it is superfluous: it came twice")],
    ),
    "the beginning of a run doubled": (
        "training",
        "IIBLPOEBLPOEBLPOEF",
        [(2, "it is superfluous: it came twice")],
    ),
    "two events swapped": (
        "training",
        "IBLPOEBLOPEBLPOEF",
        [(9, "it and OPTIM_PRE_STEP in line 10 have changed places")],
    ),
    "two events swapped, which shows at the second": (
        "compression",
        "IBCESKBLPOEBLPOEF",
        [(3, "it and BATCH_START in line 2 have changed places")],
    ),
    "a bracket missing around a loss": (
        "training",
        "IBLPOELBLPOEF",
        [(7, "it is superfluous")],
    ),
    "the brackets of an epoch missing": (
        "sequential",
        "IBESBESBESF",
        [(2, "CALIBRATION_EPOCH_START is missing before it"), (11, "CALIBRATION_EPOCH_END is missing before it")],
    ),
    "an epoch never closed": (
        "sequential",
        "ICBESCBESKF",
        [(6, "CALIBRATION_EPOCH_END is missing before it")],
    ),
    "a whole step missing from a batch, but for its end": (
        "training",
        "IBLPOEBLOEBLPOEF",
        [(9, "OPTIM_PRE_STEP is missing before it")],
    ),
    "an event of another protocol": (
        "data_free",
        "ICSKCSKPCSKF",
        [(8, "it is superfluous")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_explanation_names_what_was_done(case):
    protocol, damaged, expected = CASES[case]
    run = only_run(damaged, protocol=protocol)
    assert said(run) == expected
    assert run.status == "complete"


@pytest.mark.parametrize("whole", [TRAIN, LAYERS, MIXED])
def test_the_runs_themselves_are_legal(whole):
    assert only_run(whole).verdict == "conforms"


def test_two_runs_interleaved_are_named_beside_the_violations():
    run = only_run("ICICBBEESSKKFF", protocol="sequential")
    assert run.interleaved == 2
    assert run.violation_count
    assert run.verdict == "violates"


def test_an_event_that_came_twice_is_not_taken_for_two_runs():
    assert only_run("IIBLPOEF", protocol="training").interleaved == 0


def test_where_two_explanations_are_equal_both_are_given():
    (violation,) = only_run("ICBBESKF", protocol="sequential").violations
    assert violation.cause == "BATCH_END is missing before it"
    assert violation.alternatives == ("it is superfluous",)
    assert violation.error.hint == "BATCH_END is missing before it, or it is superfluous"
