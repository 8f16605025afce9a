"""Show that every case of the benchmark of diagnosis is what its table says, by figures that no diagnosis made.

A sick script is run as it is and with the patch that repairs it: the last number it prints (an accuracy, a loss, a
recall), its peak memory or its processor time has to be clearly different, in the direction that the table names. A
healthy one has to reach the figure in the table. Written to results/faults.md and results/faults.json.

    python benchmarks/verify_faults.py --data FOLDER [--only CASE …] [--seeds 3]
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import median

from cases import Case, Finished, bare, cases, last_number, prepare
from environments import HERE, circumstances, machine

CLEARLY = {"up": 0.05, "down": 0.1, "memory": 80.0, "seconds": 2.0}  # difference; share of the loss; MiB; ratio


def figure(case: Case, done: Finished) -> float | None:
    """The number a run is judged by; None where it failed or printed none."""
    if done.code != 0:
        return None
    kinds = {"memory": done.peak_mib, "seconds": done.cpu_s}
    return kinds.get(case.figure, last_number(done.output))


def shown(case: Case, sick: list[float | None], fixed: list[float | None]) -> bool:
    """Whether the figures say what the table says, seed by seed for the sign and in the median for the size."""
    if case.healthy:
        limit = float(case.figure[1:])
        return all(v is not None and (v > limit if case.figure[0] == ">" else v < limit) for v in sick)
    gains = [gain(case.figure, before, after) for before, after in zip(sick, fixed, strict=True)]
    return min(gains) > 0 and median(gains) >= CLEARLY[case.figure]


def gain(kind: str, before: float | None, after: float | None) -> float:
    """How much better the repaired run is; a run that fails or is not a number is as bad as can be."""
    if after is None or math.isnan(after):
        return -math.inf
    if before is None or not math.isfinite(before):
        return math.inf
    if kind in ("up", "memory"):
        return after - before if kind == "up" else before - after
    return (before - after) / before if kind == "down" else before / after


def main() -> None:
    """Run, judge, write, and exit with 1 if a case is not what it says."""
    parser = argparse.ArgumentParser(description="Verify the cases of the benchmark of diagnosis.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist and cifar10_small")
    parser.add_argument("--only", nargs="*", help="cases, faults or architectures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    prepare(args.data)
    kept = args.results / "faults.json"
    rows = json.loads(kept.read_text())["cases"] if kept.exists() and args.only else {}
    facts = machine()
    for case in cases(args.only):
        done = [bare(case, seed) for seed in range(args.seeds)]
        fixed = [] if case.healthy else [bare(case, seed, fixed=True) for seed in range(args.seeds)]
        before, after = ([figure(case, d) for d in runs] for runs in (done, fixed))
        rows[case.id] = {
            "name": case.name,
            "architecture": case.architecture,
            "figure": case.figure,
            "as it is": before,
            "repaired": after,
            "seconds": [round(d.cpu_s, 2) for d in done],
            "shown": shown(case, before, after),
        }
        print(case.id, json.dumps(rows[case.id]), flush=True)
        if all(d.code for d in done):
            print(done[0].errors[-1500:], flush=True)
        write(args.results, facts, dict(sorted(rows.items())))
    sys.exit(not all(row["shown"] for row in rows.values()))


def write(folder: Path, facts: dict, rows: dict[str, dict]) -> None:
    """The table and every number."""
    lines = ["# Cases of the benchmark of diagnosis, verified", "", *(__doc__ or "").splitlines()[2:6], ""]
    lines += [*circumstances(facts), ""]
    lines += ["| case | name | architecture | figure | as it is | repaired | seconds | shown |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for identity, row in rows.items():
        cells = [identity, row["name"], row["architecture"], row["figure"]]
        cells += [", ".join("-" if v is None else f"{v:.4g}" for v in row[k]) for k in ("as it is", "repaired")]
        cells += [f"{median(row['seconds']):.1f}", "yes" if row["shown"] else "**NO**"]
        lines.append("| " + " | ".join(cells) + " |")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    whole = {"machine": facts, "cases": rows}
    (folder / "faults.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
