"""`ds2d2 compare`: trains one student by several methods with several seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from ds2d2_yolo.commands.words import parse_arguments
from ds2d2_yolo.comparison.jobs import WORKER, run_comparison
from ds2d2_yolo.comparison.plan import ComparisonPlan, plan_comparison
from ds2d2_yolo.comparison.work import work
from ds2d2_yolo.report.comparison_tables import report_lines, save_comparison
from ds2d2_yolo.tables import counted
from ds2d2_yolo.trainer import DS2D2Trainer


def make_comparison(planned: ComparisonPlan, worker: Sequence[str] = WORKER) -> None:
    """Run the missing parts of a comparison, print its tables and save them.

    Args:
        planned (ComparisonPlan): The comparison.
        worker (Sequence[str]): Arguments of Python that start the process of a run, see `run_comparison`.

    Raises:
        DS2D2Error: If a run fails.
    """
    results = run_comparison(planned, worker)
    print("\n".join(["", *report_lines(planned, results)]))
    save_comparison(planned, results)
    print(f"saved in {planned.folder}: comparison.md, comparison.png, summary.csv, comparison.csv")


def run_compare(given: Mapping[str, object], worker: Sequence[str] = WORKER) -> None:
    """Compare methods of training a student: the mode `ds2d2 compare`.

    It prints the tables and writes four files: `comparison.md`, `comparison.png`, `summary.csv` (one line per method)
    and `comparison.csv` (one line per run).

    Args:
        given (Mapping[str, object]): `teacher`, `student`, `data`, the options of `cfg/compare.yaml`, and train
            arguments of ds2d2 and Ultralytics.
        worker (Sequence[str]): Arguments of Python that start the process of a run, see `run_comparison`.

    Raises:
        DS2D2Error: If the comparison cannot be run, or a run fails.

    Example:
        >>> run_compare({"teacher": "yolo11s.yaml", "student": "yolo11n.yaml", "data": "scenes.yaml"})  # doctest: +SKIP
    """
    planned = plan_comparison(given)
    methods, seeds = counted(len(planned.methods), "method"), counted(len(planned.seeds), "seed")
    runs = counted(len(planned.methods) * len(planned.seeds), "run")
    print(f"{methods} with {seeds} each: {runs}, in {planned.folder}; finished ones are reused", flush=True)
    make_comparison(planned, worker)
    print(f"'ds2d2 report {planned.folder}' makes a page with the images that changed most")


def run(words: Sequence[str]) -> None:
    """Run the command with the words after its name."""
    run_compare(parse_arguments(words))


if __name__ == "__main__":  # the process of one job, see `WORKER`
    sys.exit(work(DS2D2Trainer))
