"""The journal: everything that happens to a lifecycle, as JSON Lines."""

from __future__ import annotations

import contextlib
import os
import warnings
import weakref
from collections.abc import KeysView, Mapping
from pathlib import Path
from time import monotonic_ns, time
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from lifecycle.engine.listeners import Control, Tap
from lifecycle.errors import LifecycleError
from lifecycle.events import EventType
from lifecycle.journal.records import JOURNAL_VERSION, Header, Record

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from lifecycle.engine.listeners import LifecycleView
    from lifecycle.protocol.rules import Payload

__all__ = ["Journal"]

FLUSH_INTERVAL = 1_000_000_000
"""Nanoseconds after which a record is written through to the file; what may be lost when the process is killed."""

FLUSH_SIZE = 1 << 16
"""Bytes of records that wait for it at most."""

LABEL_KEYS = ("label", "layer", "modules", "module", "subgraph")
"""Where a payload may say which layer or modules it is about; the first that is there counts."""

LABELS_WRITTEN = 64
"""Names of layers or modules in one record."""

ABORTED = "it was aborted before it was saved"
"""Why a run that has just been loaded is aborted."""

TEXT_WRITTEN = 2000
"""Characters of a message or of a name."""

_SEQUENTIAL_EPOCH_END = EventType.SEQUENTIAL_EPOCH_END
_OPTIM_POST_STEP = EventType.OPTIM_POST_STEP
_HEADER_BEGINS = b'{"header":'


class Journal(Tap):
    """Writes everything that happens to a lifecycle to a file, one JSON object a line.

    Attach it with `Lifecycle.attach`. The first line has the configuration; every event, rejection, reset, abort,
    suspension and loading that follows is a `Record`. Payloads are not written, but for the names of layers and modules
    that a SEQUENTIAL_EPOCH_END brings.

    A journal that cannot be written (the disk is full) warns and stops; the run goes on.

    Args:
        target: A path, or a binary file, which stays open. A journal that is there already is continued.

    Raises:
        LifecycleError: The path has a file that is not a journal.
        OSError: The path cannot be opened.
        TypeError: `target` is neither a path nor a binary file.

    Examples:
        >>> import io
        >>> from lifecycle import Lifecycle
        >>> from lifecycle import trace
        >>> file = io.BytesIO()
        >>> lc = Lifecycle("training")
        >>> with trace.Journal(file) as journal:
        ...     handle = lc.attach(journal)
        ...     with lc.session():
        ...         pass
        >>> _ = file.seek(0)
        >>> [record.event for record in trace.read(file)]
        ['', 'initialize', 'finalize']
    """

    def __init__(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        if isinstance(target, (str, os.PathLike)):
            self._file: BinaryIO | None = _open(Path(target))
            self._owned = True
        elif callable(getattr(target, "write", None)) and not hasattr(target, "encoding"):
            self._file = target
            self._owned = False
        else:
            raise TypeError(f"a journal needs a path or a binary file, got {target!r}")
        # Records gather here, which is cheaper than a write for each; what is left at the exit is still written.
        self._buffer = bytearray()
        self._rest = weakref.finalize(self, _write_rest, self._file, self._buffer)
        self._encode_into = msgspec.json.Encoder().encode_into
        self._due = monotonic_ns() + FLUSH_INTERVAL
        self._lifecycle: LifecycleView | None = None
        self._states: dict[int, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and end the journal; what happens afterwards is not written."""
        self._flush()
        file, self._file = self._file, None
        self._rest.detach()
        if file is not None and self._owned:
            file.close()

    def after_notify(
        self, lifecycle: LifecycleView, payload: Payload, duration: int, error: BaseException | None
    ) -> None:
        """Write an event that was taken."""
        begins = lifecycle is not self._lifecycle
        if begins:
            self._begin(lifecycle)
        if self._file is None:
            return
        event = lifecycle.event
        progress = lifecycle.progress
        type_: Any = event.type_
        # What `lifecycle.state` looks up, at a third of the cost; while observers run, the row is always there.
        running: Any = lifecycle
        row = running._place  # noqa: SLF001
        now = monotonic_ns()
        record = Record(
            type_,
            self._states[id(row)],
            progress.accepted + progress.rejected + progress.ignored,
            event.global_step,
            event.global_batch,
            progress.sequential_epochs,
            progress.calibration_epochs,
            (),
            False,
            time(),
            now,
            duration,
        )
        if payload:
            if type_ is _SEQUENTIAL_EPOCH_END:
                record.label = _label(payload)
            elif type_ is _OPTIM_POST_STEP and payload.get("skipped"):
                record.skipped = True
        if begins and record.position > 1:
            record.progress = progress
        if error is not None:
            record.error = _raised(error)
        buffer = self._buffer
        self._encode_into(record, buffer, -1)
        buffer += b"\n"
        # Nothing leaves the row of a state in which a run is complete.
        if now > self._due or len(buffer) > FLUSH_SIZE or error is not None or not row:
            self._flush()

    def rejected(self, lifecycle: LifecycleView, event: object, error: Exception) -> None:
        """Write an event that was refused, or that was let through in spite of what it is."""
        record = self._standing(lifecycle)
        record.rejected = _text(str(event))
        record.reason = type(error).__name__
        record.error = _text(str(error))
        record.let_through = lifecycle.violations[-1:] == (error,)
        self._write(lifecycle, record)

    def control(self, lifecycle: LifecycleView, action: Control, detail: object) -> None:
        """Write that the run was reset, aborted, suspended, resumed or loaded."""
        record = self._standing(lifecycle)
        record.control = action
        if action == "load":
            record.progress = lifecycle.progress
            if lifecycle.status == "aborted":
                record.error = ABORTED
        if isinstance(detail, BaseException):
            record.error = _raised(detail)
        elif detail is not None:
            record.detail = _text(str(detail))
        self._write(lifecycle, record)

    def _standing(self, lifecycle: LifecycleView) -> Record:
        event, progress = lifecycle.event, lifecycle.progress
        return Record(
            state=lifecycle.state,
            position=progress.accepted + progress.rejected + progress.ignored,
            global_step=event.global_step,
            global_batch=event.global_batch,
            sequential_epochs=progress.sequential_epochs,
            calibration_epochs=progress.calibration_epochs,
            time=time(),
            clock=monotonic_ns(),
        )

    def _write(self, lifecycle: LifecycleView, record: Record) -> None:
        """Write a record that is rare, through to the file."""
        if lifecycle is not self._lifecycle:
            self._begin(lifecycle)
        if self._file is not None:
            self._encode_into(record, self._buffer, -1)
            self._buffer += b"\n"
            self._flush()

    def _begin(self, lifecycle: LifecycleView) -> None:
        if self._lifecycle is not None:
            raise LifecycleError("a journal is of one lifecycle; give the other one a journal of its own")
        self._lifecycle = lifecycle
        self._states = {id(row): state for state, row in lifecycle.protocol.rows.items()}
        event = lifecycle.event
        header = Header(
            JOURNAL_VERSION,
            lifecycle.protocol.name,
            event.steps_per_epoch,
            event.batches_per_step,
            event.invocations_per_step,
            lifecycle.expect,
            time(),
            monotonic_ns(),
        )
        self._write(lifecycle, Record(header=header))

    def _flush(self) -> None:
        """Write through to the file; if that cannot be, end the journal, so that a run does not die of it."""
        if self._file is None:
            return
        self._due = monotonic_ns() + FLUSH_INTERVAL
        try:
            self._file.write(self._buffer)
            self._file.flush()
        except (OSError, ValueError) as error:
            file, self._file = self._file, None
            if self._owned:
                with contextlib.suppress(OSError):
                    file.close()
            message = f"the journal has ended, since it cannot be written: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self._buffer.clear()


def _write_rest(file: BinaryIO, buffer: bytearray) -> None:
    """Write what a journal that nobody closed has left."""
    with contextlib.suppress(OSError, ValueError):
        file.write(buffer)
        file.flush()


def _open(path: Path) -> BinaryIO:
    """Open a journal to be continued, on a line of its own."""
    ends = b"\n"
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as written:
            if written.read(len(_HEADER_BEGINS)) != _HEADER_BEGINS:
                raise LifecycleError(f"{path} is there already and is not a journal; nothing was written to it")
            written.seek(-1, os.SEEK_END)
            ends = written.read(1)
    file = path.open("ab")
    if ends != b"\n":
        file.write(b"\n")
    return file


def _raised(error: BaseException) -> str:
    return _text(f"{type(error).__name__}: {error}")


def _text(text: str) -> str:
    """A text that can be written, whatever is in it."""
    return text[:TEXT_WRITTEN].encode(errors="replace").decode()


def _label(payload: Payload) -> tuple[str, ...]:
    """The names of what a sequential epoch was about; of an object without a name, what it is."""
    found: Any = next((payload[key] for key in LABEL_KEYS if payload.get(key) is not None), ())
    # Of what can be iterated over, other things may be tensors.
    listed = issubclass(type(found), (list, tuple, set, frozenset, Mapping, KeysView))
    every = list[Any](found) if listed else [found]
    names = [
        _text(str(each)) if isinstance(each, (str, int)) else type(each).__name__ for each in every[:LABELS_WRITTEN]
    ]
    left = len(every) - len(names)
    return (*names, f"and {left} more") if left else tuple(names)
