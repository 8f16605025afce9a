"""What a grid of experiments measured, as a table, as files and as a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Unpack

from pellucid.errors import UsageError
from pellucid.experiments.intervals import Interval, differences, interval
from pellucid.files import regular_file, result_file
from pellucid.plot.experiments import Series, plot_experiment
from pellucid.plot.figure import FigureOptions, finished
from pellucid.text import drawable, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NBSP = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Cell:
    """What one variant gave with one seed."""

    variant: str
    seed: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """A variant over its seeds.

    Attributes:
        variant: Its name.
        values: The metric, one a seed.
        summary: Mean, spread and interval of them.
        difference: Of the paired differences from the baseline; None for the baseline.
        also: Means of the other numbers.
    """

    variant: str
    values: tuple[float, ...]
    summary: Interval
    difference: Interval | None
    also: Mapping[str, float]


@dataclass(frozen=True)
class Results:
    """The results of an experiment; `str()` gives its table as Markdown.

    Attributes:
        name, question: Of the experiment.
        cells: One per variant and seed.
        baseline: The variant others are compared with.
        settings: What all variants had in common.
        metric: The number that is compared.
        percent: Whether it is a share; table, CSV of the table and picture are in per cent then.
        also: Further numbers in the table.
    """

    name: str
    question: str
    cells: tuple[Cell, ...]
    baseline: str
    settings: Mapping[str, Any]
    metric: str = "accuracy"
    percent: bool = True
    also: tuple[str, ...] = ()

    @property
    def variants(self) -> list[str]:
        """Names of the variants, in order."""
        return list(dict.fromkeys(cell.variant for cell in self.cells))

    def values(self, variant: str, name: str) -> list[float]:
        """A number of a variant as it was measured, seed by seed."""
        return [cell.values[name] for cell in self.cells if cell.variant == variant]

    def compare(self, variant: str, other: str) -> Interval:
        """The metric of one variant minus that of another, paired by seed.

        Raises:
            UsageError: there is no such variant.
        """
        for name in (variant, other):
            if name not in self.variants:
                raise UsageError(f"variant {name!r} does not exist: use one of {', '.join(self.variants)}")
        return differences(self._compared(variant), self._compared(other))

    def rows(self) -> list[Row]:
        """The table: a row per variant."""
        rows: list[Row] = []
        for variant in self.variants:
            values = self._compared(variant)
            difference = None if variant == self.baseline else self.compare(variant, self.baseline)
            also = {name: fmean(self.values(variant, name)) for name in self.also}
            rows.append(Row(variant, tuple(values), interval(values), difference, also))
        return rows

    def to_markdown(self) -> str:
        """The table as Markdown: mean ± half the 95 % interval; a difference is bold if its interval excludes zero.

        Further numbers that are the same in all rows are left out.
        """
        rows = self.rows()
        shown = [name for name in self.also if len({row.also[name] for row in rows}) > 1]
        heads = ["variant", f"{self.metric}{', %' if self.percent else ''}", "std", "difference"]
        lines = [[*heads, *(name.replace("_", " ") for name in shown), "n"]]
        lines.append(["---", *["---:"] * (len(lines[0]) - 1)])
        for row in rows:
            mean = _number(row.summary.mean, self.percent) + _plus_minus(row.summary.half, self.percent)
            also = [_plain(row.also[name]) for name in shown]
            std = _number(row.summary.std, self.percent)
            lines.append([row.variant, mean, std, self._difference(row), *also, str(row.summary.n)])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"

    def plot(self, **options: Unpack[FigureOptions]) -> Figure:
        """Every seed with mean and interval, and the paired differences from the baseline.

        Options are `figsize`, `dpi`, `title` and `suptitle`.
        """
        series = [
            Series(
                drawable(row.variant),
                row.values,
                (row.summary.low, row.summary.mean, row.summary.high),
                row.difference and (row.difference.low, row.difference.mean, row.difference.high),
            )
            for row in self.rows()
        ]
        unit = "%" if self.percent else ""
        names = {"title": self.question, "metric": self.metric, "baseline": self.baseline}
        drawn = plot_experiment(series, unit=unit, **{name: drawable(text) for name, text in names.items()})
        return finished(drawn, options)

    def save(self, folder: Path) -> None:
        """Write `values.csv` (every cell as measured), `table.csv`, `table.md` and `picture.png`."""
        names = list(dict.fromkeys(name for cell in self.cells for name in cell.values))
        every = ([cell.variant, cell.seed, *(cell.values.get(name, math.nan) for name in names)] for cell in self.cells)
        _write_csv(folder / "values.csv", ["variant", "seed", *names], every)
        heads = ["variant", "n", "mean", "std", "low", "high", "difference", "difference_low", "difference_high"]
        _write_csv(folder / "table.csv", [*heads, *self.also], map(_csv_row, self.rows()))
        head = f"# {self.question}\n\n{', '.join(f'{name} {value:,}' for name, value in self.settings.items())}\n\n"
        with result_file(folder / "table.md") as scratch:
            scratch.write_text(head + self.to_markdown(), encoding="utf-8")
        figure = self.plot()
        with result_file(folder / "picture.png") as scratch:
            figure.savefig(scratch, dpi=150, format="png")
        _close(figure)

    def __str__(self) -> str:
        return self.to_markdown()

    def _compared(self, variant: str) -> list[float]:
        return [100 * value if self.percent else value for value in self.values(variant, self.metric)]

    def _difference(self, row: Row) -> str:
        if row.difference is None:
            return "baseline"
        d = row.difference
        if math.isnan(d.half):
            return f"{_signed(d.mean, self.percent)}"
        ends = _signed(d.low, self.percent), _signed(d.high, self.percent)
        text = f"{_signed(d.mean, self.percent)} ({ends[0]}{NBSP}to{NBSP}{ends[1]})"
        return f"**{text}**" if d.excludes_zero else text


def read_cells(file: Path) -> tuple[Cell, ...]:
    """The cells of a `values.csv`.

    Raises:
        UsageError: it is no such file: a column or a number is missing.
    """
    with regular_file(file).open(encoding="utf-8", newline="") as lines:
        try:
            return tuple(
                Cell(row.pop("variant"), int(row.pop("seed")), {name: float(value) for name, value in row.items()})
                for row in csv.DictReader(lines)
            )
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise UsageError(f"{printable(file)}: is no values.csv of an experiment ({printable(error)})") from None


def _write_csv(file: Path, heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with result_file(file) as scratch, scratch.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)


def _csv_row(row: Row) -> list[Any]:
    s, d = row.summary, row.difference
    compared = [d.mean, d.low, d.high] if d else ["", "", ""]
    return [row.variant, s.n, s.mean, s.std, s.low, s.high, *compared, *row.also.values()]


def _number(value: float, percent: bool) -> str:
    return "" if math.isnan(value) else f"{value:.2f}" if percent else f"{value:.4g}"


def _plus_minus(half: float, percent: bool) -> str:
    return "" if math.isnan(half) else f"{NBSP}±{NBSP}{_number(half, percent)}"


def _signed(value: float, percent: bool) -> str:
    size = _number(abs(value), percent)
    return size if not float(size) else ("−" if value < 0 else "+") + size


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) >= 1 else f"{value:.4f}"


def _close(figure: Figure) -> None:
    import matplotlib.pyplot as plt

    plt.close(figure)
