"""``python tests/benchmarks``: time the engine beside the alternatives, and print the ratios.

The targets are those of the project. A missed one is shown, and is no failure: the exit status is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from harness import FULL, QUICK
from suite import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/benchmarks", description="Time the engine.")
    parser.add_argument("--quick", action="store_true", help="a few tiny rounds: see that it runs, trust no figure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    machine = f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} processors"
    print(machine)
    sections = []
    for section in run(QUICK if arguments.quick else FULL):
        print(f"\n{section.text()}", flush=True)
        sections.append(section.data())
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "sections": sections}, indent=2) + "\n")


if __name__ == "__main__":
    main()
