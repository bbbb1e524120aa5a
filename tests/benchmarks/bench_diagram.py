"""``python tests/benchmarks/bench_diagram.py``: what drawing costs, as ratios in one run.

The text of the default protocol against the drawing of it; an overlay of a long journal against checking that journal.
"""

from __future__ import annotations

import argparse
import io

from harness import least_times

from lifecycle import Lifecycle, protocols, trace
from lifecycle.diagram import find_program, overlay_of_report, overlay_of_trace, picture, to_dot, to_svg
from lifecycle.diagram.renderers.svg import finish

EVENTS_PER_BATCH = 5
MOST_FOR_TEXT = 0.1
MOST_FOR_OVERLAY = 1.2


def journal(events: int) -> bytes:
    """The journal of a training run of so many events."""
    file = io.BytesIO()
    lc = Lifecycle("training")
    with trace.Journal(file) as written:
        lc.attach(written)
        with lc.session():
            for _ in range(events // EVENTS_PER_BATCH):
                with lc.batch():
                    lc.loss_calculated(loss=1.0)
                    lc.optim_pre_step()
                    lc.optim_post_step()
    return file.getvalue()


def main() -> None:
    """Measure, and print a line for each ratio."""
    parser = argparse.ArgumentParser(description="Time diagrams.")
    parser.add_argument("--quick", action="store_true", help="a few tiny rounds: see that it runs, trust no figure")
    quick = parser.parse_args().quick

    def text() -> str:
        return to_dot(picture(protocols.COMPRESSION))

    whole = picture(protocols.COMPRESSION)
    source = to_svg(whole).encode()
    built, drawn, finished = least_times(2 if quick else 50, text, lambda: to_svg(whole), lambda: finish(source, whole))
    print(f"drawn by {find_program()}")
    print(f"DOT of the default protocol / SVG of it: {built / drawn:.3f}, target {MOST_FOR_TEXT}")
    print(f"  {built * 1e3:.2f} ms for the DOT, {drawn * 1e3:.1f} ms for the SVG")
    print(f"  {finished * 1e3:.1f} ms of it to finish what the program wrote")

    lines = journal(1_000 if quick else 1_000_000)

    def check() -> trace.Report:
        return trace.check(io.BytesIO(lines), protocols.TRAINING)

    def overlay() -> str:
        return to_dot(picture(protocols.TRAINING, overlay_of_trace(io.BytesIO(lines), protocols.TRAINING)))

    checked, shown = least_times(1 if quick else 3, check, overlay)
    assert overlay_of_report(check(), protocols.TRAINING).tallies
    print(f"DOT of an overlay of a journal / checking it: {shown / checked:.3f}, target {MOST_FOR_OVERLAY}")
    print(f"  {checked:.2f} s to check, {len(lines) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
