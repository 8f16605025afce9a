"""Rows of a result table: two series measured in pairs, how they compare, and the limit of the claim."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal, NoReturn


@dataclass
class Row:
    """One claim. `ours[i]` and `theirs[i]` were measured one after the other, so only they are compared.

    `how` they compare also says on which side of `limit` the median has to lie: "ratio" (ours / theirs) and
    "difference" (ours - theirs) at most, "times faster" (theirs / ours) at least. Without a limit nothing is judged.
    """

    claim: str
    ours: list[float]
    theirs: list[float]
    how: Literal["ratio", "difference", "times faster"]
    limit: float | None = None
    unit: str = "s"

    @property
    def compared(self) -> list[float]:
        """The comparison, round by round."""
        compare = {
            "ratio": lambda a, b: a / b,
            "difference": lambda a, b: a - b,
            "times faster": lambda a, b: b / a,
        }[self.how]
        return [compare(a, b) for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        """Whether the median keeps the limit."""
        if self.limit is None:
            return ""
        value = median(self.compared)
        kept = value >= self.limit if self.how == "times faster" else value <= self.limit
        return "pass" if kept else "**FAIL**"

    def cells(self) -> list[str]:
        """The row as text, for a table with the columns of `HEADER`."""
        unit = f" {self.unit}" if self.how == "difference" else ""
        sign = "≥" if self.how == "times faster" else "≤"
        return [
            self.claim,
            f"{spread(self.ours)} {self.unit}",
            f"{spread(self.theirs)} {self.unit}",
            f"{spread(self.compared)}{unit}",
            "" if self.limit is None else f"{sign} {self.limit:.3g}{unit}",
            str(len(self.ours)),
            self.verdict,
        ]


HEADER = ["claim", "pellucid", "other", "compared", "limit", "n", "verdict"]


def spread(values: list[float]) -> str:
    """Median (minimum to maximum) in three digits."""
    low, mid, high = (f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in _three(values))
    return f"{mid} ({low} to {high})"


def _three(values: list[float]) -> tuple[float, float, float]:
    return min(values), median(values), max(values)


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def finish(folder: Path, name: str, text: str, rows: list[Row], **facts: object) -> NoReturn:
    """Write the results, print the table, and exit with 1 if a claim fails."""
    write(folder, name, text, rows, **facts)
    print(table(rows))
    sys.exit(any("FAIL" in row.verdict for row in rows))


def write(folder: Path, name: str, text: str, rows: list[Row], **facts: object) -> None:
    """Write `name`.md, `text` with the table below it, and `name`.json with every single value."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(f"{text}\n\n{table(rows)}\n", encoding="utf-8")
    listed = [asdict(row) | {"compared": row.compared, "verdict": row.verdict.strip("*")} for row in rows]
    whole = facts | {"rows": listed}
    (folder / f"{name}.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
