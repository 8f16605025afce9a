"""Run a function over named variants and seeds, keep every finished cell, and go on after an interruption."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pellucid.errors import UsageError
from pellucid.experiments.results import Cell, Results
from pellucid.files import read_json, result_file
from pellucid.output import say
from pellucid.text import printable

Function = Callable[..., Mapping[str, float]]
PROBE_BYTES = 1 << 16


@dataclass(frozen=True)
class Experiment:
    """A question, and the grid of trainings that answers it.

    Attributes:
        name: Of the experiment and its folder.
        question: What is compared, in one sentence.
        function: Called as `function(seed, **variant, **settings)`; returns numbers by name. It must depend on nothing
            else, so that a cell can be kept.
        variants: Name → keyword arguments of the function; the values must fit into JSON.
        baseline: The variant that the others are compared with, seed by seed; default the first.
        settings: Keyword arguments common to all variants, which `run` may override.
        metric: The number that is compared.
        percent: Whether it is a share, shown in per cent.
        also: Further numbers for the table, as means over the seeds; those that are the same everywhere are left out.
    """

    name: str
    question: str
    function: Function
    variants: Mapping[str, Mapping[str, Any]]
    baseline: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    percent: bool = True
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.variants:
            raise UsageError(f"experiment {self.name!r} has no variants")
        if self.baseline and self.baseline not in self.variants:
            raise UsageError(f"baseline {self.baseline!r} is none of the variants {', '.join(self.variants)}")


def run(
    experiment: Experiment,
    seeds: int = 5,
    out: str | Path = "experiments",
    report: Callable[[str], None] | None = say,
    **settings: Any,
) -> Results:
    """Fill the grid and write its results into `<out>/<name>/`.

    Each cell is on disk, whole, as soon as it is finished: `cells/<variant>-<seed>-<key>.json`. The key stands for
    everything the result depends on, so a second call takes up where the first was stopped, and other settings make
    other cells. All variants of a seed come before the next seed.

    Args:
        experiment: What to run.
        seeds: How many: 0, 1, …
        out: Parent folder.
        report: Takes a line a cell; None for silence.
        settings: Override those of the experiment.

    Returns:
        The results; `values.csv`, `table.csv`, `table.md` and `picture.png` hold them too.

    Raises:
        UsageError: no seed, a setting the experiment does not have, or a folder that cannot be written.
    """
    if seeds < 1:
        raise UsageError(f"seeds must be at least 1, got {seeds}")
    unknown = settings.keys() - experiment.settings.keys()
    if unknown:
        known = ", ".join(experiment.settings) or "none"
        raise UsageError(f"experiment {experiment.name!r} has no setting {min(unknown)!r}; there are: {known}")
    folder, chosen = Path(out) / experiment.name, {**experiment.settings, **settings}
    cells: list[Cell] = []
    _probe(folder)  # before hours are spent on what goes there
    for seed in range(seeds):
        for name, options in experiment.variants.items():
            described = _description(experiment.name, name, options, chosen, seed)
            file = folder / "cells" / f"{_file_stem(name, seed)}-{_key(described)}.json"
            values = _stored(file, described, experiment)
            kept = values is not None
            if values is None:
                if report and file.exists():
                    report(f"{printable(file)}: damaged, or of another training; trained again")
                values = _measured(experiment, seed, {**options, **chosen})
                with result_file(file) as scratch:
                    cell = json.dumps(described | {"values": values}, indent=1, ensure_ascii=False)
                    scratch.write_text(cell + "\n", encoding="utf-8")
            cells.append(Cell(name, seed, values))
            if report:
                place = f"{len(cells):>3} of {seeds * len(experiment.variants)}"
                found = f"{experiment.metric} {values[experiment.metric]:.4f}{'  (kept)' if kept else ''}"
                report(f"{place}  seed {seed}  {name:{max(map(len, experiment.variants))}}  {found}")
    results = Results(
        experiment.name,
        experiment.question,
        tuple(cells),
        experiment.baseline or next(iter(experiment.variants)),
        chosen,
        experiment.metric,
        experiment.percent,
        experiment.also,
    )
    results.save(folder)
    return results


def _description(experiment: str, variant: str, options: Any, settings: Any, seed: int) -> dict[str, Any]:
    versions = {name: version(name) for name in ("pellucid", "torch")}
    names = ("experiment", "variant", "options", "settings", "seed", "versions")
    return dict(zip(names, (experiment, variant, dict(options), dict(settings), seed, versions), strict=True))


def _key(described: dict[str, Any]) -> str:
    return blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=6).hexdigest()


def _file_stem(variant: str, seed: int) -> str:
    return f"{re.sub(r'[^a-z0-9.]+', '-', variant.lower()).strip('-')}-{seed}"


def _measured(experiment: Experiment, seed: int, options: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(value) for name, value in experiment.function(seed, **options).items()}
    missing = [name for name in (experiment.metric, *experiment.also) if name not in values]
    if missing:
        raise UsageError(
            f"experiment {experiment.name!r} shows {missing[0]!r}, which its function does not return; it gives "
            f"{', '.join(values) or 'nothing'}"
        )
    return values


def _stored(file: Path, described: dict[str, Any], experiment: Experiment) -> dict[str, float] | None:
    """The numbers in a finished cell; None where there is none, or one that is not what its name says."""
    if not file.exists():
        return None
    try:
        cell = read_json(file)
    except UsageError:
        return None
    values = cell.pop("values", None)
    if not isinstance(values, dict) or cell != json.loads(json.dumps(described)):
        return None
    if not values.keys() >= {experiment.metric, *experiment.also} or not all(map(_is_number, values.values())):
        return None
    return {name: float(value) for name, value in values.items()}


def _is_number(value: Any) -> bool:
    # A whole number of JSON may be too long for a float.
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53)


def _probe(folder: Path) -> None:
    file = folder / ".probe"
    with result_file(file) as scratch:
        scratch.write_bytes(bytes(PROBE_BYTES))
    file.unlink()
