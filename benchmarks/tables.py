"""Write the tables and pictures of `docs/results` from the runs in its CSVs.

A page has blocks from `<!-- KIND EXPERIMENT WORDS -->` to `<!-- end -->`. This script writes their contents:

- `facts yolo11-scenes`: data, models, hardware, date and command, from `experiments.yaml`.
- `means yolo11-scenes plain builtin ds2d2`: means of methods, and their differences to the first one.
- `seeds yolo11-scenes plain builtin`: AP50 / AP50-95 of every run of these methods.
- `rows yolo11-airbus-long`: the rows of the CSV, unchanged.
- `overview yolo11-scenes yolo11-airbus`: a row for each experiment.

`differences.svg` has the experiments of the overview. Others have a picture of AP and cost, if their entry in
`experiments.yaml` names its file in `picture`.

    python benchmarks/tables.py    # after a change of a CSV, of experiments.yaml or of a block
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from ds2d2_yolo.comparison.statistics import Interval, gap_closed, mean_interval, paired_differences
from ds2d2_yolo.report.palette import AXIS, BETTER, CARD, FAINT, GRID, INK, WORSE

FOLDER = Path(__file__).parents[1] / "docs" / "results"
MAIN = ("AP50", "AP50-95")
SIZES = ("AP75", "APs", "APm", "APl")
BLOCK = re.compile(r"<!-- (facts|means|seeds|rows|overview) (.+?) -->\n.*?<!-- end -->", re.DOTALL)
NAMES = {"plain": "plain", "builtin": "Ultralytics' own distillation", "ds2d2": "DS2D2"}
FOUR_TERMS = "DS2D2, four terms"

Run = dict[str, str]
Table = list[list[str]]


@cache
def described(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the content of `experiments.yaml` by experiment."""
    return yaml.safe_load((folder / "experiments.yaml").read_text(encoding="utf-8"))


class Experiment:
    """The runs of one CSV, and their entry in `experiments.yaml`."""

    def __init__(self, folder: Path, name: str) -> None:
        self.facts: dict[str, Any] = described(folder)[name]
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            self.header, *rows = list(csv.reader(file))
        self.rows: list[Run] = [dict(zip(self.header, row, strict=True)) for row in rows]

    def values(self, method: str, metric: str) -> dict[int, float]:
        """Return the values of a method's runs by seed."""
        rows = (row for row in self.rows if row["method"] == method and row["seed"].isdigit())
        return {int(row["seed"]): float(row[metric]) for row in rows if row.get(metric)}

    def seeds(self, method: str, among: Iterable[int] = ()) -> str:
        """Return the seeds of a method's runs, such as `0-4` or `0, 2`; with `among`, only these."""
        seeds = [row["seed"] for row in self.rows if row["method"] == method]
        numbers = sorted({int(seed) for seed in seeds if seed.isdigit()} & {*(among or range(100))})
        if not numbers:
            return seeds[0].removeprefix("mean ") if seeds else ""
        whole = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
        return f"{numbers[0]}-{numbers[-1]}" if whole else ", ".join(map(str, numbers))

    def mean(self, method: str, metric: str, among: Iterable[int] = ()) -> float:
        """Return the mean over the runs with these seeds, or the mean in the CSV if single runs are missing."""
        values = self.values(method, metric)
        if chosen := [value for seed, value in values.items() if seed in (among or values)]:
            return fmean(chosen)
        kept = f"mean {self.seeds(method, among)}"
        found = [row[metric] for row in self.rows if (row["method"], row["seed"]) == (method, kept) and row.get(metric)]
        return float(found[0]) if found else math.nan

    def difference(self, method: str, reference: str, metric: str) -> Interval:
        """Return the mean difference of runs with the same seed."""
        return mean_interval(paired_differences(self.values(method, metric), self.values(reference, metric)))

    def ahead(self, method: str, reference: str) -> str:
        """Return the number of pairs in which a method has the higher AP50-95."""
        pairs = paired_differences(self.values(method, MAIN[1]), self.values(reference, MAIN[1]))
        return f"{sum(pair > 0 for pair in pairs)} of {len(pairs)}" if pairs else ""

    def cost(self, method: str) -> float:
        """Return the time of a run, as a multiple of that of plain, from `experiments.yaml`. NaN if it has none."""
        return float(self.facts.get("costs", {}).get(method, math.nan))

    def gap(self, method: str) -> str:
        """Return the share of the gap in AP50-95 between plain and teacher that a method closes, over common seeds."""
        seeds = self.values(method, MAIN[1])
        if len(seeds) == 1:
            return ""
        share = gap_closed(
            self.mean(method, MAIN[1]), self.mean("plain", MAIN[1], seeds), self.mean("teacher", MAIN[1])
        )
        return "" if share is None else f"{share:.0%}"

    def shared_seeds(self, methods: Iterable[str]) -> set[int]:
        """Return the seeds of the runs of any of the methods."""
        return {seed for method in methods for seed in self.values(method, MAIN[0])}

    def title(self, method: str) -> str:
        """Return the name of a method in tables, or its name in `methods=`."""
        if method == "ds2d2" and "older" in self.facts:
            return FOUR_TERMS
        return NAMES.get(method, method if method.startswith("teacher") and "-" not in method else f"`{method}`")

    def subject(self) -> str:
        """Return data and models in a few words."""
        models = re.split("[,;]", self.facts["models"])[0]
        return f"{self.facts['title']}: {models}{' (four terms)' if 'older' in self.facts else ''}"


def number(value: float, digits: int = 1) -> str:
    """Return a number with one digit after the point, or as many as given; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def signed(interval: Interval) -> str:
    """Return a difference with its interval, if there are two pairs or more."""
    if math.isnan(interval.mean):
        return ""
    low, high = interval.low, interval.high
    return f"{interval.mean:+.1f}" + ("" if low is None or high is None else f" [{low:+.1f}, {high:+.1f}]")


def facts(experiment: Experiment) -> list[str]:
    """Return data, models, hardware and date as a table, then the command."""
    what = experiment.facts
    rows = [
        ["data", what["data"]],
        ["models", what["models"]],
        ["schedule", f"{what['image size']} px; epochs: {what['epochs']}"],
        ["hardware", what["hardware"]],
        ["measured", f"{what['date']}, ds2d2-yolo before 0.1.0, torch 2.14.1, Ultralytics 8.4.190"],
        *([["**older version**", what["older"]]] if "older" in what else []),
        *([["cost", what["cost"]]] if "cost" in what else []),
        *(["note", note] for note in what.get("notes", [])),
    ]
    return [*markdown([["", ""], *rows]), "", "```bash", *what["command"].rstrip().splitlines(), "```"]


def means(experiment: Experiment, reference: str, *methods: str) -> list[str]:
    """Return the mean AP of methods, and their differences to the reference."""
    sizes = [size for size in SIZES if size in experiment.header]
    differences = [f"{metric} - {experiment.title(reference)}" for metric in MAIN]
    header = ["", "cost", "seeds", *MAIN, *sizes, *differences, "pairs ahead", "gap closed"]
    rows = []
    for method in (name for name in ("teacher", reference, *methods) if name != "teacher" or reference == "plain"):
        among = experiment.shared_seeds(methods) if method == reference else ()
        cells = [experiment.title(method), number(experiment.cost(method), 2), experiment.seeds(method, among)]
        cells += [number(experiment.mean(method, metric, among)) for metric in (*MAIN, *sizes)]
        if method in {reference, "teacher"}:
            cells += [""] * 4
        else:
            cells += [signed(experiment.difference(method, reference, metric)) for metric in MAIN]
            cells += [experiment.ahead(method, reference), experiment.gap(method) if reference == "plain" else ""]
        rows.append(cells)
    return markdown(without_empty_columns([header, *rows]))


def seeds(experiment: Experiment, *methods: str) -> list[str]:
    """Return AP50 / AP50-95 of the runs whose seeds occur in one of the methods after the first."""
    found = {method: [experiment.values(method, metric) for metric in MAIN] for method in methods}
    every = sorted(experiment.shared_seeds(methods[1:]))
    rows = [
        [experiment.title(method), *(f"{box[seed]} / {main[seed]}" if seed in box else "" for seed in every)]
        for method, (box, main) in found.items()
    ]
    return markdown([["AP50 / AP50-95", *(f"seed {seed}" for seed in every)], *rows])


def as_they_are(experiment: Experiment) -> list[str]:
    """Return the rows of the CSV."""
    rows = [[experiment.title(row["method"]), *list(row.values())[1:]] for row in experiment.rows]
    return markdown([["", *experiment.header[1:]], *rows])


def overview(folder: Path, names: Iterable[str]) -> list[str]:
    """Return a row for each experiment: AP50-95 of teacher, plain, Ultralytics' own and DS2D2, with the differences."""
    header = ["AP50-95", "seeds", "teacher", "plain", "Ultralytics'", "DS2D2", "DS2D2 - plain", "DS2D2 - Ultralytics'"]
    rows = []
    for name in names:
        experiment = Experiment(folder, name)
        row = [experiment.subject(), experiment.seeds("ds2d2")]
        row += [number(experiment.mean(method, MAIN[1])) for method in ("teacher", "plain", "builtin", "ds2d2")]
        row += [signed(experiment.difference("ds2d2", reference, MAIN[1])) for reference in ("plain", "builtin")]
        rows.append(row)
    return markdown([header, *rows])


def without_empty_columns(table: Table) -> Table:
    """Leave out columns that have only a header."""
    columns = zip(*table, strict=True)
    return [list(row) for row in zip(*(column for column in columns if any(column[1:])), strict=True)]


def markdown(table: Table) -> list[str]:
    """Return rows as lines of Markdown, the header first."""
    header, *rows = ("| " + " | ".join(row) + " |" for row in table)
    return [header, "|" + "---|" * len(table[0]), *rows]


def written(text: str, folder: Path = FOLDER) -> str:
    """Return a page with every block written anew from the CSVs in the folder."""
    kinds: dict[str, Callable[..., list[str]]] = {"facts": facts, "means": means, "seeds": seeds, "rows": as_they_are}

    def block(match: re.Match[str]) -> str:
        kind, words = match[1], match[2].split()
        lines = overview(folder, words) if kind == "overview" else kinds[kind](Experiment(folder, words[0]), *words[1:])
        return "\n".join([f"<!-- {kind} {match[2]} -->", "", *lines, "", "<!-- end -->"])

    return BLOCK.sub(block, text)


def write(at: float, y: float, words: object, colour: str = FAINT, anchor: str = "start") -> str:
    """Return a text of an SVG."""
    return f'<text x="{at}" y="{y}" font-size="12" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def line(path: str, colour: str, thick: int = 1, more: str = "") -> str:
    """Return a line of an SVG."""
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"{more}/>'


def dot(x: float, y: float, colour: str) -> str:
    """Return a dot of an SVG."""
    return f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"/>'


def svg(width: float, height: float, lines: Iterable[str]) -> str:
    """Return an SVG."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="100%" height="100%" fill="{CARD}"/>', *lines, "</svg>"]) + "\n"


def picture(folder: Path, names: Iterable[str]) -> str:
    """Return an SVG of the differences in AP50-95 between DS2D2 and plain, with their intervals."""
    left, width, height, low, high = 420, 840, 24, -4, 10  # pixels, then the ends of the axis in points of AP50-95

    def x(points: float) -> float:
        return round(left + (min(max(points, low), high) - low) / (high - low) * (width - left - 20), 1)

    found = [Experiment(folder, name) for name in names]
    bottom = 40 + height * len(found)
    lines = [write(left, 24, "AP50-95, DS2D2 minus plain, with 95 % interval", INK)]
    for points in range(low, high + 1, 2):
        lines.append(line(f"M{x(points)} 36V{bottom}", GRID if points else AXIS))
        lines.append(write(x(points), bottom + 16, points, anchor="middle"))
    for row, experiment in enumerate(found):
        interval, y = experiment.difference("ds2d2", "plain", MAIN[1]), 40 + height * row + height // 2
        start, end = interval.low or 0.0, interval.high or 0.0
        colour = BETTER if start > 0 else WORSE if end < 0 else FAINT
        lines += [
            write(left - 12, y + 4, experiment.subject(), INK, "end"),
            line(f"M{x(start)} {y}H{x(end)}", colour, 2),
            dot(x(interval.mean), y, colour),
        ]
    note = "grey: not significant; a line that ends at the edge continues"
    return svg(width, bottom + 44, [*lines, write(left, bottom + 36, note)])


def family(method: str) -> str:
    """Return the name of a method without the number of epochs at its end."""
    return re.sub(r"-\d+$", "", method)


def cost_picture(folder: Path, names: Iterable[str]) -> str:
    """Return an SVG of AP50-95 against the cost of a run, a panel for each experiment.

    A line joins the runs of a family, which differ in their epochs alone. `drawn` in `experiments.yaml` names families.
    """
    side, width, top, bottom, panel = 50, 420, 40, 300, 360  # pixels
    lines: list[str] = []
    for place, name in enumerate(names):
        experiment, left = Experiment(folder, name), side + width * place
        costs = dict(sorted(experiment.facts["costs"].items(), key=lambda item: float(item[1])))
        families = experiment.facts.get("drawn") or list(dict.fromkeys(map(family, costs)))
        runs = {m: [*experiment.values(m, MAIN[1]).values()] for m in costs if family(m) in families}
        teacher = experiment.mean("teacher", MAIN[1])
        values = [teacher, *(value for found in runs.values() for value in found)]
        low, high = math.floor(min(values)), math.ceil(max(values))
        right = math.ceil(max(map(costs.__getitem__, runs)) * 2) / 2

        def x(cost: float, left: int = left, right: float = right) -> float:
            return round(left + (cost - 0.8) / (right - 0.8) * (panel - 40), 1)

        def y(points: float, low: int = low, high: int = high) -> float:
            return round(bottom - (points - low) / (high - low) * (bottom - top), 1)

        lines.append(write(left, 24, f"{experiment.facts['title']}: AP50-95", INK))
        for points in range(low, high + 1, 2 if high - low <= 14 else 5):
            lines.append(line(f"M{left} {y(points)}h{panel - 40}", GRID))
            lines.append(write(left - 8, y(points) + 4, points, anchor="end"))
        for half in range(2, int(right * 2) + 1):
            lines.append(line(f"M{x(half / 2)} {bottom}v4", AXIS))
            lines.append(write(x(half / 2), bottom + 18, half / 2, anchor="middle"))
        lines.append(write(left, bottom + 38, "cost of a run; that of the plain student is 1"))
        lines.append(line(f"M{left} {y(teacher)}h{panel - 40}", FAINT, more=' stroke-dasharray="4 4"'))
        lines.append(write(left + 4, y(teacher) + 14, "teacher"))
        for kind in families:
            members = [method for method in runs if family(method) == kind]
            colour = {"plain": FAINT, "builtin": WORSE, "self-training": WORSE}.get(kind, BETTER)
            at = [(x(costs[method]), y(fmean(runs[method]))) for method in members]
            lines.append(line("M" + "L".join(f"{across} {level}" for across, level in at), colour, 2))
            for method, (across, level) in zip(members, at, strict=True):
                lines.append(line(f"M{across} {y(min(runs[method]))}V{y(max(runs[method]))}", colour))
                lines.append(dot(across, level, colour))
            title = experiment.title(kind if len(members) > 1 else members[0]).strip("`")
            lines.append(write(at[-1][0] + 7, at[-1][1] + 4, title.removesuffix(" distillation"), INK))
    lines.append(write(side, bottom + 58, "dot: mean; line: lowest to highest seed"))
    return svg(side + width * (place + 1), bottom + 70, lines)


def outputs(folder: Path = FOLDER) -> dict[Path, str]:
    """Return the pages and the picture, written from the CSVs in a folder."""
    pages = {path: written(path.read_text(encoding="utf-8"), folder) for path in sorted(folder.glob("*.md"))}
    shown = re.findall(r"<!-- overview (.+?) -->", pages[folder / "index.md"])[0]
    panels: dict[str, list[str]] = {}
    for name, entry in described(folder).items():
        if "picture" in entry:
            panels.setdefault(entry["picture"], []).append(name)
    return (
        pages
        | {folder / "differences.svg": picture(folder, shown.split())}
        | {folder / file: cost_picture(folder, names) for file, names in panels.items()}
    )


def main() -> None:
    """Write what differs from the CSVs, and name it."""
    new = outputs()
    stale = [path for path, text in new.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        path.write_text(new[path], encoding="utf-8")
    print(f"written: {', '.join(path.name for path in stale) or 'none'}")


if __name__ == "__main__":
    main()
