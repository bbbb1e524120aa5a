"""``lifecycle check``: what is wrong in traces."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lifecycle.errors import LifecycleError, TraceFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import BinaryIO

    from lifecycle.protocol import Protocol
    from lifecycle.trace.checking.traces import Checking
    from lifecycle.trace.report import Report, Violation

__all__ = ["command"]

POLL_SECONDS = 0.2
"""How often a file that is followed is looked at."""

SETTLE_SECONDS = 2.0
"""After how long without a change a violation is explained by what has come so far."""

STDIN = "-"
BAD_INPUT = 2


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--protocol",
    metavar="NAME|auto|FILE.py:NAME",
    help="What the runs should obey; auto finds the smallest built-in protocols that they obey. By default that of the "
    "journal, and compression for other traces.",
)
@click.option("--repeat-steps", is_flag=True, help="The optimizer may be called several times for one step.")
@click.option(
    "--expect", metavar="NAME=COUNT,...", help="Counts that are known, such as sequential_epochs=33,batches=512."
)
@click.option("--format", "kind", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.option("--allow-incomplete", is_flag=True, help="Be content with runs that did not end.")
@click.option("--strict-names", is_flag=True, help="A name that is no event is a violation.")
@click.option("--follow", is_flag=True, help="Watch a growing file, and report what comes, until the run ends.")
@click.pass_context
def command(  # noqa: PLR0917 # click passes them by name
    context: click.Context,
    files: tuple[str, ...],
    protocol: str | None,
    expect: str | None,
    kind: str,
    repeat_steps: bool,
    allow_incomplete: bool,
    strict_names: bool,
    follow: bool,
) -> None:
    """Check the traces of finished or running sessions.

    A trace is a journal of this library, JSON Lines that name events, or the log of LLM Compressor at DEBUG, compressed
    or not. - is standard input. The exit status is 0 if all runs are complete and legal, 1 if not, 2 for bad input.
    """
    from lifecycle.trace.checking.traces import Checking

    if follow and len(files) > 1:
        raise LifecycleError(f"--follow watches one file, got {len(files)}")
    options: dict[str, Any] = {
        "protocol": _protocol(protocol),
        "expect": None if expect is None else _counts(expect),
        "repeat_steps": repeat_steps,
        "strict_names": strict_names,
    }
    # What is wrong with the options is no fault of the files.
    Checking("", **options)

    def outcome(file: str) -> tuple[int, str]:
        """The exit status for a file, and what is said of it."""
        try:
            report = _follow(file, kind, options) if follow else _check(file, options)
        except (TraceFormatError, OSError) as error:
            return 2, str(error)
        status = 1 if report.violation_count or not (allow_incomplete or report.ok) else 0
        return status, _rendered(report, kind, allow_incomplete=allow_incomplete)

    statuses: list[int] = []
    for status, text in _with_progress(files, outcome):
        statuses.append(status)
        if status == BAD_INPUT:
            click.echo(f"Error: {text}", err=True)
        elif text:
            click.echo(text)
    if kind == "text" and len(files) > 1:
        click.echo(
            f"{len(files)} traces: {statuses.count(0)} fine, {statuses.count(1)} not, {statuses.count(2)} bad input"
        )
    context.exit(max(statuses))


def _with_progress(files: Sequence[str], outcome: Callable[[str], tuple[int, str]]) -> Iterable[tuple[int, str]]:
    """The outcome for each file: at once, or after a progress bar if there are many and a person waits."""
    if len(files) == 1 or not is_terminal():
        return map(outcome, files)
    with click.progressbar(files, label="Checking", file=sys.stderr) as bar:
        return list(map(outcome, bar))


def is_terminal() -> bool:
    """Whether a person sees the progress."""
    return sys.stderr.isatty()


def _protocol(name: str | None) -> Protocol | str | None:
    from lifecycle.lookup import find_protocol
    from lifecycle.trace.checking.traces import AUTO

    return name if name is None or name == AUTO else find_protocol(name)


def _counts(text: str) -> dict[str, int]:
    """Counts as the command line has them; whether there are such counts is for the checker to say."""
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, _, count = (word.strip() for word in part.partition("="))
        if not (name and count.isdecimal() and count.isascii()):
            raise LifecycleError(f"--expect needs NAME=COUNT, got {part!r}")
        counts[name] = int(count)
    return counts


def _source(file: str) -> tuple[str | BinaryIO, str]:
    from lifecycle.trace.formats.source import name_of

    return (sys.stdin.buffer, "<stdin>") if file == STDIN else (file, name_of(file, None))


def _check(file: str, options: Mapping[str, Any]) -> Report:
    from lifecycle import trace

    source, name = _source(file)
    return trace.check(source, name=name, **options)


def _follow(file: str, kind: str, options: Mapping[str, Any]) -> Report:
    """Check a file while it grows, until its run ends or the user has seen enough."""
    from lifecycle.trace.checking.traces import Checking
    from lifecycle.trace.formats.readers import batches
    from lifecycle.trace.text import violation_lines

    def live(violation: Violation) -> None:
        if kind == "text":
            click.echo(f"{name}: " + "\n  ".join(violation_lines(violation)))

    source, name = _source(file)
    checking = Checking(name, on_violation=live, **options)
    with contextlib.suppress(KeyboardInterrupt):
        for records in batches(source, name=name, wait=_Patience(file, checking)):
            checking.feed(records)
    return checking.end()


class _Patience:
    """Waits for a file to grow, as long as the run in it has not ended."""

    def __init__(self, file: str, checking: Checking) -> None:
        self._file = file
        self._checking = checking
        self._size = 0
        self._waited = 0.0

    def __call__(self) -> bool:
        """Whether there may be more to read."""
        if self._file == STDIN:
            return False
        size = Path(self._file).stat().st_size
        if size < self._size:
            raise TraceFormatError(f"{self._file} became shorter while it was followed")
        self._waited = 0.0 if size > self._size else self._waited + POLL_SECONDS
        self._size = size
        if self._waited >= SETTLE_SECONDS:
            self._checking.settle()
        if self._checking.over:
            return False
        time.sleep(POLL_SECONDS)
        return True


def _rendered(report: Report, kind: str, *, allow_incomplete: bool) -> str:
    from lifecycle.trace.text import to_github, to_text

    if kind == "json":
        return report.to_json()
    if kind == "github":
        return to_github(report, allow_incomplete=allow_incomplete)
    return to_text(report)
