"""Measure what watching costs and write results/watching.md and results/watching.json.

The claims, every layer and every batch:

- the chapter's network: at most 1.15 times (batch size 512) and 1.25 times (64) as long a step as unwatched with
  histograms, 1.06 and 1.12 times without, 1.15 and 1.25 times with all that the doctor wants to know; an 18-layer
  residual network on 128-pixel colour images: at most 1.08 times;
- `pellucid train` takes at most 1.05 times as long as with --no-doctor, from the start of its process to its end;
- memory grows by at most 1 MiB between 1,000 and 200,000 steps.

Blocks of steps alternate between the ways of watching in one process, so that a ratio compares neighbours; a block's
figure is the median step, a row's the median over the rounds. The usual hooks in our loop, and fastai's ActivationStats
in fastai's loop, stand beside.

    python benchmarks/watching.py --quick
"""

import argparse
import json
import tempfile
from itertools import count
from pathlib import Path
from time import perf_counter

from environments import HERE, PEERS, circumstances, output, prepared, python
from rows import Row, finish

WAYS = {"histogram": (1.15, 1.25), "no histogram": (1.06, 1.12), "doctor": (1.15, 1.25)}
TRAINING = 1.05
BESIDE = ("histogram and gradients", "usual hooks")


def seconds(environment: str, script: str, *options: str | int) -> dict[str, list[float]]:
    """Seconds per step by way of watching, a figure a round."""
    printed = output(python(environment), PEERS / script, *map(str, options))
    measured = json.loads(printed.strip().splitlines()[-1])
    for way, values in measured.items():
        print(
            f"  {script} {' '.join(map(str, options))} {way}: {1e3 * sorted(values)[len(values) // 2]:.2f} ms",
            flush=True,
        )
    return measured


def as_rows(measured: dict[str, list[float]], what: str, limits: dict[str, float] | None = None) -> list[Row]:
    """A row per way of watching, against the unwatched steps beside it."""
    in_ms = {way: [1e3 * value for value in values] for way, values in measured.items()}
    return [
        Row(f"{what}: {way} / unwatched", values, in_ms["unwatched"], "ratio", (limits or {}).get(way), "ms")
        for way, values in in_ms.items()
        if way != "unwatched"
    ]


def trainings(source: str, epochs: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of `pellucid train` with and without the doctor, in turn; the first round warms up."""
    ways: dict[str, list[str]] = {"without the doctor": ["--no-doctor"], "with the doctor": []}
    measured: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        number = count()
        for round_ in range(rounds + 1):
            for way in [*ways][:: 1 if round_ % 2 else -1]:
                command = ["-m", "pellucid", "train", source, "--epochs", str(epochs), "--out"]
                began = perf_counter()
                output(python("pellucid"), *command, Path(folder) / str(next(number)), *ways[way])
                if round_:
                    measured[way].append(perf_counter() - began)
    for way, values in measured.items():
        print(f"  pellucid train {source}, {way}: {sorted(values)[len(values) // 2]:.2f} s", flush=True)
    return measured


def main() -> None:
    """Prepare, measure, write the results, and exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description="Measure what watching costs.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="three rounds, no peers; a look only")
    args = parser.parse_args()
    rounds = 3 if args.quick else args.rounds
    environments = ["pellucid"] if args.quick else ["pellucid", "fastai"]
    facts, packages = prepared(environments)
    rows: list[Row] = []
    for i, bs in enumerate((512, 64)):
        limits = {way: both[i] for way, both in WAYS.items()}
        common = ("--bs", bs, "--steps", 40)
        rows += as_rows(seconds("pellucid", "watched.py", *common, "--rounds", rounds), f"bs {bs}", limits)
        slow = seconds("pellucid", "watched.py", *common, "--rounds", 5, "--without-numba", "--ways", "histogram")
        rows += as_rows({"unwatched": slow["unwatched"], "histogram, without numba": slow["histogram"]}, f"bs {bs}")
        if not args.quick:
            fastai = seconds("fastai", "fastai_watched.py", *common, "--rounds", 5)
            rows += as_rows(fastai, f"bs {bs}, fastai's loop")
    resnet = ("--model", "resnet", "--bs", 16, "--steps", 5, "--rounds", max(3, rounds * 2 // 3))
    limits = {"histogram": 1.08}
    rows += as_rows(
        seconds("pellucid", "watched.py", *resnet, "--ways", *limits), "residual network, 128 px, bs 16", limits
    )
    for source, epochs in (("mnist_sample", 2),) if args.quick else (("mnist", 3), ("mnist_sample", 5)):
        found = trainings(source, epochs, rounds)
        pair = found["with the doctor"], found["without the doctor"]
        claim = f"pellucid train {source}, {epochs} epochs: with the doctor / without"
        rows.append(Row(claim, *pair, "ratio", TRAINING))
    memory = json.loads(output(python("pellucid"), PEERS / "watched_memory.py"))
    last, first = list(memory.values())[-1], next(iter(memory.values()))
    rows.append(Row("memory after 200,000 steps minus after 1,000", [last], [first], "difference", 1.0, "MiB"))
    text = describe(facts, packages, memory)
    finish(HERE / "results", "watching", text, rows, machine=facts, versions=packages)


def describe(facts: dict, packages: dict[str, dict[str, str]], memory: dict[str, float]) -> str:
    """Head of the result page: what was measured, where, when and with what."""
    steps = ", ".join(f"{int(step):,}: {mib:.1f}" for step, mib in memory.items())
    lines = [
        "# What watching costs",
        "",
        "A training step with every layer recorded at every batch, against the same step unwatched. Cells show the",
        "median (minimum to maximum) of n rounds; the median of the pairwise ratios is judged. Written by",
        "`python benchmarks/watching.py`, whose first lines say how.",
        "",
        f"Resident memory (MiB) after so many steps of the chapter's network, histograms on: {steps}.",
        "",
        *circumstances(facts, packages),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
