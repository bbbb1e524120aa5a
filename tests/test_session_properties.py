"""What holds of a session whatever happens: events in any order, hooks that fail, aborts and resets."""

from __future__ import annotations

import contextlib
import re

from hypothesis import given
from hypothesis import strategies as st
from recording import HOOKS, Recorder
from runs import long_lists, unhurried
from sequences import Draw

from lifecycle import LifecycleError, protocols
from lifecycle.errors import grouped
from lifecycle.session import CompressionSession


class BrokenError(Exception):
    """A modifier that fails."""


GROUP = type(grouped("its type", [BrokenError()]))

LETTER = dict.fromkeys(HOOKS, "x") | {
    "on_initialize": "i",
    "on_start": "s",
    "on_update": "u",
    "on_end": "n",
    "on_finalize": "f",
    "on_abort": "a",
}
# A modifier that was never initialized is aborted all the same.
ONE_RUN = re.compile(r"(i x* (s [ux]* (n x*)?)? [fa]? | a)?", re.VERBOSE)

actions = (
    st.integers(0, 4095).map(Draw)
    | st.integers(0, 4095).map(Draw)
    | st.sampled_from(HOOKS)
    | st.sampled_from(["abort", "reset"])
)


@unhurried
@given(protocol=st.sampled_from(list(protocols.BUILT_IN)), acts=long_lists(actions, 60), start=st.integers(0, 2))
def test_a_modifier_that_does_not_fail_is_told_of_runs_in_order(protocol, acts, start):
    schedule = {"start": start, "end": start + 2}
    before, failing, after = modifiers = [Recorder(**schedule) for _ in range(3)]
    session = CompressionSession(modifiers, protocol)
    runs = {before: [""], after: [""]}
    for act in [*acts, "reset"]:
        if act in HOOKS:
            failing.fails = {act: BrokenError()}
            continue
        with contextlib.suppress(BrokenError, LifecycleError, GROUP):
            if act == "abort":
                session.abort()
            elif act == "reset":
                session.reset()
            else:
                event, payload = act.choose(session.lifecycle)
                session.event(event, **payload)
        for modifier, found in runs.items():
            found[-1] += "".join(LETTER[detail[0]] for detail in modifier.details)
            modifier.details.clear()
            if act == "reset":
                found.append("")
        failing.fails = {}
    for found in runs.values():
        assert [run for run in found if not ONE_RUN.fullmatch(run)] == []
        # Every run that has begun was told how it ended.
        assert [run for run in found if run and run[-1] not in "fa"] == []
