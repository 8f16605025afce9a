"""Train the rows of the chapter's result tables over several seeds, with pellucid and with fastai, on this machine.

Writes results/chapter.md and results/chapter.json. Every value is written as soon as it is there; `--resume` keeps
those of an interrupted run. `--quick` trains one row once and writes nothing.

    python benchmarks/chapter_rows.py --seeds 5
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from environments import HERE, PEERS, circumstances, output, prepared, python
from peers.chapter_row import ROWS, Row

LIBRARIES = ("pellucid", "fastai")
FOLDERS = "from pellucid import URLs, untar_data as u; print(u(URLs.MNIST_SAMPLE)); print(u(URLs.MNIST))"
CHANCE = 0.2  # a collapsed net of ten classes answers at random
Values = dict[str, dict[str, list[float]]]  # library → row → accuracy, one a seed


def accuracy(library: str, index: int, seed: int, sample: str, digits: str) -> float:
    """Validation accuracy at the end of one training, in a process of its own."""
    command = [str(python(library)), str(PEERS / "chapter_row.py"), library, "--row", str(index)]
    command += ["--seed", str(seed), "--sample", sample, "--digits", digits]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{library} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["accuracy"]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation; for nets that may collapse, how many did, and of the others."""
    alive = [value for value in values if value > CHANCE]
    deviation = f" ± {stdev(alive):.4f}" if len(alive) > 1 else ""
    text = f"{mean(alive):.4f}{deviation}" if alive else ""
    if len(alive) == len(values):
        return text
    collapsed = f"{len(values) - len(alive)} of {len(values)} collapse"
    return f"{collapsed}, others {text}" if alive else collapsed


def table(rows: tuple[Row, ...], values: Values) -> str:
    """All results as a Markdown table."""
    libraries = list(values)
    head = ["training", "chapter", *libraries, *(f"{library}, each seed" for library in libraries)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        measured = [values[library].get(row.name, []) for library in libraries]
        each = [" ".join(f"{value:.4f}" for value in found) for found in measured]
        lines.append([row.name, f"{row.chapter:.4f}", *(spread(found) if found else "" for found in measured), *each])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(folder: Path, values: Values, facts: dict, packages: dict[str, dict[str, str]]) -> None:
    """Write the table, and every single value."""
    head = [
        "# The chapter's results",
        "",
        "Validation accuracy of the chapter's recipes: what the chapter prints (one run), and mean ± standard",
        "deviation over seeds of the same lines run with pellucid and with fastai in turn. The plain net at 0.06",
        "without 1cycle is meant to fail: whether it collapses depends on the seed. Written by",
        "`python benchmarks/chapter_rows.py`.",
        "",
        *circumstances(facts, packages),
        "",
        table(ROWS, values),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chapter.md").write_text("\n".join(head) + "\n", encoding="utf-8")
    whole = {"machine": facts, "packages": packages, "accuracy": values}
    (folder / "chapter.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Train all rows with both libraries and write them down."""
    parser = argparse.ArgumentParser(description="Train the chapter's rows over several seeds.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one seed of the first row, nothing written")
    parser.add_argument("--resume", action="store_true", help="keep what chapter.json has")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    facts, packages = prepared(LIBRARIES)
    folders = output(python("pellucid"), "-c", FOLDERS).split()
    values: Values = {library: {} for library in LIBRARIES}
    if args.resume:
        values |= json.loads((args.results / "chapter.json").read_text(encoding="utf-8"))["accuracy"]
    rows, seeds = (ROWS[:1], 1) if args.quick else (ROWS, args.seeds)
    for seed in range(seeds):
        for index, row in enumerate(rows):
            for library, measured in values.items():
                found = measured.setdefault(row.name, [])
                if len(found) > seed:
                    continue
                found.append(accuracy(library, index, seed, *folders))
                print(f"seed {seed}  {row.name:36} {library:10} {found[-1]:.4f}", flush=True)
                if not args.quick:
                    write(args.results, values, facts, packages)
    print(table(rows, values))


if __name__ == "__main__":
    main()
