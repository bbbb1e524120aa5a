"""``python tests/benchmarks/bench_trace.py``: what traces cost, as ratios in one run.

Checking a journal against decoding its lines; writing a record against encoding it and writing it buffered; and the
memory of a check, for journals of two lengths.
"""

from __future__ import annotations

import argparse
import tempfile
import tracemalloc
from pathlib import Path

import msgspec
from harness import least_times

from lifecycle import Lifecycle, trace

MOST_FOR_CHECK = 2.5
MOST_FOR_RECORD = 2.0
BATCHES_OF_A_LAYER = 50
LAYERS = 10
DURATION = 5_000


def write_journal(path: Path, events: int) -> None:
    """Write the journal of a run of about so many events: layers that are calibrated, then training."""
    lc = Lifecycle()
    with trace.Journal(path) as journal:
        lc.attach(journal)
        with lc.session():
            with lc.calibration_epoch():
                for layer in range(LAYERS):
                    for _ in range(BATCHES_OF_A_LAYER):
                        with lc.batch():
                            pass
                    lc.sequential_epoch_end(modules=[f"layers.{layer}"])
            while lc.progress.accepted < events:
                with lc.batch():
                    lc.loss_calculated(loss=1.0)
                    lc.optim_pre_step()
                    lc.optim_post_step()


def peak(path: Path) -> int:
    """The most bytes that a check of a trace has at a time."""
    tracemalloc.start()
    try:
        trace.check(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def bench_check(folder: Path, *, quick: bool) -> None:
    """Check journals."""
    short, long = (folder / name for name in ("short.jsonl", "long.jsonl"))
    write_journal(short, 3_000 if quick else 100_000)
    write_journal(long, 6_000 if quick else 1_000_000)
    decode = msgspec.json.Decoder(trace.Record).decode

    def decoding() -> None:
        with long.open("rb") as file:
            for line in file:
                decode(line)

    def checking() -> None:
        assert trace.check(long).ok

    decoded, checked = least_times(1 if quick else 7, decoding, checking)
    print(f"checking a journal / decoding its lines: {checked / decoded:.2f}, target {MOST_FOR_CHECK}")
    print(f"  {checked:.2f} s to check {long.stat().st_size / 1e6:.0f} MB")
    print(f"memory of a check: {peak(short) / 1e6:.2f} MB, of one ten times as long {peak(long) / 1e6:.2f} MB")


def bench_record(folder: Path, *, quick: bool) -> None:
    """Write records."""
    records = 100 if quick else 5_000
    lc = Lifecycle()
    journal = trace.Journal(folder / "journal.jsonl")
    lc.attach(journal)
    _ = lc.initialize(), lc.calibration_epoch_start(), lc.batch_start()
    journal._flush()
    *_, record = trace.read(folder / "journal.jsonl")
    # It is the reader that numbers lines.
    record.line = 0
    encode = msgspec.json.Encoder().encode
    with (folder / "plain.jsonl").open("wb") as file:

        def encoding() -> None:
            for _ in range(records):
                file.write(encode(record) + b"\n")

        def journaling() -> None:
            write = journal.after_notify
            for _ in range(records):
                write(lc, {}, DURATION, None)

        encoded, journaled = least_times(3 if quick else 200, encoding, journaling)
    journal.close()
    print(f"writing a record / encoding and writing it: {journaled / encoded:.2f}, target {MOST_FOR_RECORD}")
    print(f"  {journaled / records * 1e9:.0f} ns for a record with its times")


def main() -> None:
    """Measure, and print a line for each ratio."""
    parser = argparse.ArgumentParser(description="Time traces.")
    parser.add_argument("--quick", action="store_true", help="a few tiny rounds: see that it runs, trust no figure")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        bench_check(Path(folder), quick=quick)
        bench_record(Path(folder), quick=quick)


if __name__ == "__main__":
    main()
