"""What a trace consists of, whatever format it was written in: one record for each thing that happened."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 # msgspec reads the annotations when it runs
from typing import Annotated

import msgspec

from lifecycle.engine.listeners import Control  # noqa: TC001 # msgspec reads the annotations when it runs
from lifecycle.protocol.rules import Progress  # noqa: TC001 # msgspec reads the annotations when it runs

__all__ = ["JOURNAL_VERSION", "Header", "Record"]

JOURNAL_VERSION = 1
"""Version of the journal's format; it rises when an old reader could misread a new journal."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Version = Annotated[int, msgspec.Meta(ge=JOURNAL_VERSION, le=JOURNAL_VERSION)]
Size = Annotated[int, msgspec.Meta(ge=1)]
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Header(msgspec.Struct, omit_defaults=True, frozen=True):
    """How the lifecycle that wrote a journal was configured.

    Attributes:
        version: Of the format of the journal.
        protocol: Name of the protocol.
        steps_per_epoch: Optimizer steps in an epoch.
        batches_per_step: Batches in one optimizer step.
        invocations_per_step: Calls of the optimizer that make one step.
        expect: Counts that the caller knew.
        time: When the journal was begun, in seconds since 1970.
        clock: The same on a clock that never goes back, in nanoseconds from some beginning.

    Examples:
        >>> Header(version=1, protocol="training").invocations_per_step
        1
    """

    version: Version
    protocol: str
    steps_per_epoch: Size | None = None
    batches_per_step: Size | None = None
    invocations_per_step: Size = 1
    expect: Mapping[str, Count] = {}
    time: float = 0.0
    clock: Nanoseconds = 0


class Record(msgspec.Struct, omit_defaults=True, gc=False):
    """One line of a trace. What it does not say is empty, zero or None.

    A record is one of four: an event that was taken, an event that was rejected, a control (the run was reset, aborted,
    suspended or resumed, or loaded from a saved state), or the header of a journal, with which a run begins.

    Attributes:
        event: The event that was taken, in any of its spellings; empty in the other three.
        state: The state of the run after it.
        position: Which event of the run it is, counted from 1 over all that were offered.
        global_step: Optimizer steps so far.
        global_batch: Batches completed so far.
        sequential_epochs: Sequential epochs (layers) ended in this calibration epoch.
        calibration_epochs: Calibration epochs ended so far.
        label: Names of the layers or modules that a sequential epoch was about.
        skipped: Whether the optimizer left the weights as they were.
        time: When it was written, in seconds since 1970.
        clock: The same on a clock that never goes back, in nanoseconds from some beginning.
        duration: How long its observers took, in nanoseconds.
        error: What an observer raised; or why the event was rejected or the run aborted.
        rejected: The event that was rejected, as the caller wrote it.
        reason: The type of the error with which it was rejected.
        let_through: Whether the rejected event was taken all the same, and so follows as an event.
        control: What was done to the run.
        detail: How the run that was reset had ended, why it was suspended, or the state that was loaded.
        progress: What the run had done, if it was loaded, or if the journal begins during it.
        header: The configuration of the lifecycle.
        line: The line of the file, counted from 1; readers set it, and journals do not hold it.

    Examples:
        >>> msgspec.json.encode(Record(event="batch_end", state="session.ready", global_batch=1))
        b'{"event":"batch_end","state":"session.ready","global_batch":1}'
    """

    event: str = ""
    state: str = ""
    position: Count = 0
    global_step: Count = 0
    global_batch: Count = 0
    sequential_epochs: Count = 0
    calibration_epochs: Count = 0
    label: tuple[str, ...] = ()
    skipped: bool = False
    time: float = 0.0
    clock: Nanoseconds = 0
    duration: Nanoseconds = 0
    error: str | None = None
    rejected: str | None = None
    reason: str | None = None
    let_through: bool = False
    control: Control | None = None
    detail: str | None = None
    progress: Progress | None = None
    header: Header | None = None
    line: int = 0
