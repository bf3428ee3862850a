"""Records of invented runs, for the tests of statistics and tables."""

from pathlib import Path

from ds2d2_yolo.comparison.methods import Comparison, Method
from ds2d2_yolo.comparison.records import Results


def curve_of(values, pace=10.0):
    """A curve of AP50-95 per epoch; AP50 is twice that."""
    return [
        {"epoch": number, "seconds": number * pace, "AP50": 2 * value, "AP50-95": value}
        for number, value in enumerate(values, start=1)
    ]


def run_of(method, seed, values, pace=10.0, **changes):
    curve = curve_of(values, pace)
    return {
        **{"method": method, "seed": seed, "curve": curve, "AP50": 2 * max(values), "AP50-95": max(values)},
        **{"coco": {"APs": max(values) / 2, "APm": max(values), "APl": None}},
        **{"classes": {"ship": {"AP": max(values)}, "vehicle": {"AP": None}}, "weights": f"{method}-{seed}.pt"},
        **{"seconds": curve[-1]["seconds"], "seconds_per_epoch": pace, "peak_bytes": 300 * 2**20},
        **{"continued_after": [], "versions": {"torch": "2.14.1"}},
        **changes,
    }


FLAT = (0.1, 0.2, 0.2, 0.2, 0.2)  # a student that no longer improves
TEACHER = {"AP50": 0.8, "AP50-95": 0.4, "coco": {"APs": 0.2, "APm": 0.4, "APl": None}}


def results_of(seeds=(0, 1), **changes):
    runs = []
    for seed in seeds:
        runs.append(run_of("plain", seed, [value + 0.01 * seed for value in FLAT]))
        runs.append(run_of("builtin", seed, [0.05, 0.1, 0.15, 0.2, 0.25 - 0.01 * seed], pace=15.0))
        runs.append(run_of("ds2d2", seed, [0.01, 0.05, 0.1, 0.2, 0.26 + 0.03 * seed], pace=25.0))
    return Results(
        **{"teacher": TEACHER, "stages": {"teacher": 600.0, "amplifier haar": None}, "runs": runs, **changes}
    )


def comparison_of(folder=Path("nowhere"), seeds=(0, 1), cluster=None):
    methods = [
        Method("plain", "none", {}),
        Method("builtin", "ultralytics", {}),
        Method("ds2d2", "ds2d2", {"im_full": 3}),
    ]
    arguments = {"teacher": "t.pt", "model": "s.yaml", "data": "d.yaml", "epochs": 5, "amplifier": None}
    return Comparison(folder, methods, list(seeds), arguments, cluster)


def masked(figures, values):
    """Add mask AP to metrics with box AP. AP50 is twice AP50-95."""
    return {**figures, "metrics/mAP50(M)": 2 * values, "metrics/mAP50-95(M)": values}
