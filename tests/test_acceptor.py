"""The acceptor is what the protocols are compared with, so it is itself compared with examples worked out by hand."""

from __future__ import annotations

import ast
import re
import sys
from itertools import product
from pathlib import Path

import acceptor
import pytest

COMPLETE = {
    "compression": ["IF", "ICKF", "ICSKF", "ICBEBLESSSKBLPOEBLECBLPOEKF"],
    "data_free": ["IF", "ICKF", "ICSKF", "ICSKCKF"],
    "basic": ["IF", "ICKF", "ICSKF", "ICBEBLESKF", "ICBEKCBESKF"],
    "sequential": ["IF", "ICSKF", "ICSSSSKF", "ICBEBLESBESKF", "ICSSSSKCSSSSKF"],
    "training": ["IF", "IBLEF", "IBLPOEF", "IBLEBLEBLPOEF"],
    "training_microbatched": ["IF", "IBLEF", "IBLPOEF", "IBLLLPOEBLLEF"],
    "upstream": ["IF", "IIF", "IEEF", "IBOKSCCF", "IBLBPBOBEF", "IBLLPPOOEEF"],
}
ILLEGAL = {
    "compression": ["II", "F", "B", "IBE", "IBLL", "IS", "ICC", "ICF", "ICBS", "ICBP", "ICKK", "IBC", "IFI", "IBLPOP"],
    "data_free": ["ICB", "IB", "ICSS", "ICF"],
    "basic": ["IB", "ICSS", "ICSB", "ICBLP", "ICBK"],
    "sequential": ["ICK", "ICBEK", "ICSBEK", "ICBLP", "ICBS"],
    "training": ["IC", "IBE", "IBLL", "IBLPE", "IBLPOP", "IBLF"],
    "training_microbatched": ["IBE", "IBP", "IBLPL", "IBLPOP"],
    "upstream": ["B", "IBB", "IL", "IP", "IO", "IBPL", "IBOL", "IBOP", "IBEO", "IFI", "IFC"],
}


@pytest.mark.parametrize(("name", "word"), [(name, word) for name in COMPLETE for word in COMPLETE[name]])
def test_complete_runs_are_accepted(name, word):
    assert acceptor.accepts(acceptor.acceptor(name), word)


@pytest.mark.parametrize(("name", "word"), [(name, word) for name in ILLEGAL for word in ILLEGAL[name]])
def test_of_an_illegal_word_all_but_the_last_letter_is_legal(name, word):
    machine = acceptor.acceptor(name)
    assert acceptor.is_legal(machine, word[:-1])
    assert not acceptor.is_legal(machine, word)


@pytest.mark.parametrize("name", acceptor.NAMES)
def test_the_beginning_of_a_run_is_legal_and_not_complete(name):
    machine = acceptor.acceptor(name)
    assert acceptor.is_legal(machine, "I")
    assert not acceptor.accepts(machine, "I")
    assert not acceptor.accepts(machine, "")
    assert not acceptor.accepts(machine, "IB" * 9)


@pytest.mark.parametrize("name", acceptor.LANGUAGES)
def test_derivatives_accept_what_the_regular_expressions_of_python_accept(name):
    pattern = re.compile(acceptor.spelled_out(acceptor.LANGUAGES[name]).replace(" ", ""))
    machine = acceptor.acceptor(name)
    for inner in (word for length in range(5) for word in product("CBLPOESK", repeat=length)):
        word = f"I{''.join(inner)}F"
        assert acceptor.accepts(machine, word) == bool(pattern.fullmatch(word)), word


@pytest.mark.parametrize("name", acceptor.STEPPING)
def test_optimizer_events_repeat_only_where_that_is_asked_for(name):
    assert not acceptor.is_legal(acceptor.acceptor(name), "IBLPOP")
    assert acceptor.accepts(acceptor.acceptor(name, repeat=True), "IBLPOPOPOEF")


def test_words_are_all_legal_ones_shortest_first():
    assert list(acceptor.words(acceptor.acceptor("data_free"), 3)) == ["", "I", "IC", "IF", "ICS", "ICK"]


def test_what_may_follow_a_word():
    machine = acceptor.acceptor("compression")
    assert acceptor.follow(machine, acceptor.run(machine, "ICBL")) == "PE"


def test_counts_of_a_calibration_epoch_by_layers():
    assert acceptor.counted("ICBESBLESK", batches_per_step=2) == {
        "global_batch": 2,
        "global_step": 1,
        "accepted": 10,
        "calibration_epochs": 1,
        "sequential_epochs": 2,
        "total_sequential_epochs": 2,
        "batches": 2,
        "batches_without_optimizer": 0,
        "invocations": 0,
        "calibrating": False,
        "optimizer_called": False,
    }


def test_counts_of_a_second_epoch_that_is_open():
    assert acceptor.counted("ICBESKCSSBLP", batches_per_step=5) == {
        "global_batch": 1,
        "global_step": 0,
        "accepted": 12,
        "calibration_epochs": 1,
        "sequential_epochs": 2,
        "total_sequential_epochs": 3,
        "batches": 0,
        "batches_without_optimizer": 0,
        "invocations": 0,
        "calibrating": True,
        "optimizer_called": True,
    }


@pytest.mark.parametrize(
    ("word", "skipped", "sizes", "steps"),
    [
        ("IBLPOEBLPOE", (), {}, 2),
        ("IBLPOEBLPOE", (4,), {}, 1),
        ("IBLPOPOEBLPOPOE", (), {"invocations_per_step": 2}, 2),
        ("IBLPOPOEBLPOPOE", (4,), {"invocations_per_step": 2}, 1),
        ("IBLEBLE", (), {}, 0),
        ("ICBEBE", (), {}, 2),
        ("ICBEBEBE", (), {"batches_per_step": 2}, 1),
        # Of three batches in two groups, the optimizer's step begins a new group,
        ("ICBEBLPOEBE", (), {"batches_per_step": 2}, 1),
        # a skipped one does not, and its batch belongs to none,
        ("ICBEBLPOE", (7,), {"batches_per_step": 2}, 0),
        ("ICBEBLPOEBE", (7,), {"batches_per_step": 2}, 1),
        # and a new epoch does.
        ("ICBEKCBE", (), {"batches_per_step": 2}, 0),
        ("ICBEKBLECBE", (), {"batches_per_step": 2}, 0),
        ("ICBEKBLE", (), {}, 1),
    ],
)
def test_steps(word, skipped, sizes, steps):
    assert acceptor.counted(word, skipped, **sizes)["global_step"] == steps


@pytest.mark.parametrize(
    ("word", "batches"), [("IBLEBLE", 2), ("IBLEBLPOE", 0), ("IBLEBLPOEBLE", 1), ("ICBEBE", 2), ("ICBEBEBE", 0)]
)
def test_batches_without_an_optimizer_event_since_the_last_step(word, batches):
    assert acceptor.counted(word, batches_per_step=3)["batches_without_optimizer"] == batches


def test_the_acceptor_imports_the_standard_library_only():
    tree = ast.parse(Path(acceptor.__file__).read_text(encoding="utf-8"))
    imported = {str(node.module).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported <= sys.stdlib_module_names
