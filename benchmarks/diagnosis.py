"""Measure how often the doctor names the right fault, and write results/diagnosis.md and results/diagnosis.json.

Every script of benchmarks/faults is run under `pellucid doctor --json`, unmodified, with several seeds, and so it is
under the built-in rules of SageMaker Debugger (peers/rules_sagemaker.py). A sick run is named right if the first
finding is the name in the table or one accepted beside it; a healthy run with an error or a warning is a false alarm.
Development and held-out architectures are counted apart. Each finished run is a file in .envs/diagnosis, so that the
benchmark can be interrupted; runs of an older doctor or of an older script are not used again.

    python benchmarks/diagnosis.py --data FOLDER [--only CASE …] [--development] [--seeds 5] [--jobs 1]

FOLDER holds `mnist` (idx files) and `cifar10_small` (JPEGs in a folder per class, train/ and valid/). That the cases
are what the table says is shown by `verify_faults.py`.
"""

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from cases import WORK, Case, cases, prepare, run
from environments import HERE, PEERS, circumstances, machine
from peers.rules_sagemaker import MEANS

PEER = PEERS / "rules_sagemaker.py"
BINS = [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01]


@dataclass(frozen=True)
class Run:
    """A case with a seed, the doctor's report (None where it printed none), and which of the peer's rules fired."""

    case: Case
    seed: int
    report: dict | None
    seconds: float
    fired: dict[str, int] | None

    @property
    def findings(self) -> list[dict]:
        """What was found, most certain first."""
        return self.report["findings"] if self.report else []

    @property
    def alarms(self) -> list[dict]:
        """Errors and warnings."""
        return [finding for finding in self.findings if finding["severity"] != "note"]

    @property
    def first(self) -> str:
        """Name of the first finding; "nothing" or "no report" without one."""
        shown = self.alarms or self.findings
        return shown[0]["name"] if shown else "nothing" if self.report else "no report"

    @property
    def right(self) -> bool:
        """A sick run named right first, or a healthy one without an alarm."""
        if self.case.healthy:
            return self.report is not None and not self.alarms
        return self.first in self.case.accepted

    @property
    def peer_right(self) -> bool | None:
        """Whether any rule that fired could mean the fault, or none fired on a healthy run."""
        if self.fired is None:
            return None
        if self.case.healthy:
            return not self.fired
        return bool(self.case.accepted & {name for rule in self.fired for name in MEANS[rule].split()})


def digest(*files: Path) -> str:
    """Of the contents of files, short."""
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in sorted(files))).hexdigest()[:12]


def kept(folder: str, case: Case, seed: int, version: str, make: Callable[[], dict]) -> dict:
    """What `make` returned for this case, seed and version, from its file if there is one."""
    path = WORK / folder / f"{case.id}-{seed}.json"
    stamp = f"{version} {digest(case.script)}"
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] == stamp:
            return found
    found = make() | {"version": stamp}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found), encoding="utf-8")
    return found


def doctor(case: Case, seed: int) -> dict:
    """Run a case under `pellucid doctor`."""
    command = [sys.executable, "-m", "pellucid", "doctor", "--json", case.script, "--", "--seed", str(seed)]
    done = run(command, seed)
    report = last_object(done.output)
    tail = "" if report else done.errors[-2000:]
    return {"report": report, "code": done.code, "seconds": done.seconds, "errors": tail}


def peer(case: Case, seed: int) -> dict:
    """Run a case under the peer's rules."""
    done = run([sys.executable, PEER, case.script, "--seed", str(seed)], seed)
    return last_object(done.output) or {"fired": None, "failed": done.errors[-2000:]}


def last_object(output: str) -> dict | None:
    """The JSON object that an output ends with, on one line or several."""
    for start in (found.start() for found in reversed(list(re.finditer(r"^\{", output, re.MULTILINE)))):
        try:
            return json.loads(output[start:])
        except json.JSONDecodeError:
            continue
    return None


def measure(case: Case, seed: int, versions: dict[str, str], with_peer: bool) -> Run:
    """Run a case under both, or take what is kept."""
    ours = kept("doctor", case, seed, versions["doctor"], lambda: doctor(case, seed))
    theirs = kept("sagemaker", case, seed, versions["peer"], lambda: peer(case, seed)) if with_peer else {}
    found = Run(case, seed, ours["report"], ours["seconds"], theirs.get("fired"))
    mark = "✓" if found.right else "✗"
    print(f"  {mark} {case.id} seed {seed}  {case.name}: {found.first}  {ours['seconds']:.1f} s", flush=True)
    if ours["errors"]:
        print(ours["errors"][-600:], flush=True)
    return found


def share(runs: list[Run], value: Callable[[Run], bool | None]) -> str:
    """Right ones of those measured."""
    values = [v for run in runs if (v := value(run)) is not None]
    return f"{mean(values):.3f} ({sum(values)} of {len(values)})" if values else "-"


def summary(runs: list[Run]) -> list[str]:
    """The table on top: sick and healthy, development and held-out architectures."""
    groups = {
        "all": runs,
        "development architectures": [r for r in runs if not r.case.held_out],
        "held-out architectures": [r for r in runs if r.case.held_out],
    }
    lines = ["| runs | named right first | named at all | false alarms | peer: a rule that could mean it |"]
    lines[0] += " peer: false alarms |"
    lines.append("|---|---|---|---|---|---|")
    for name, group in groups.items():
        sick, healthy = [r for r in group if not r.case.healthy], [r for r in group if r.case.healthy]
        among = share(sick, lambda r: bool(r.case.accepted & {f["name"] for f in r.findings}))
        alarms = share(healthy, lambda r: bool(r.alarms))
        theirs = share(healthy, lambda r: None if r.peer_right is None else not r.peer_right)
        cells = [name, share(sick, lambda r: r.right), among, alarms, share(sick, lambda r: r.peer_right), theirs]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def per_case(runs: list[Run]) -> list[str]:
    """A line a case: how often right, what it was named instead, since which step, how sure, and the peer's rules."""
    lines = ["| case | name | architecture | held out | right | named instead | step | confidence | peer's rules |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for case in sorted({r.case.id: r.case for r in runs}.values(), key=lambda c: (c.name, c.id)):
        group = [r for r in runs if r.case == case]
        wrong = Counter(r.first for r in group if not r.right)
        firsts = [(r.alarms or r.findings)[0] for r in group if r.findings]
        steps = [f["step"] for f in firsts if f["step"] is not None]
        rules = Counter(rule for r in group for rule in r.fired or {})
        cells = [case.id, case.name, case.architecture, "yes" if case.held_out else "no"]
        cells += [f"{sum(r.right for r in group)}/{len(group)}", ", ".join(f"{k} {n}" for k, n in wrong.most_common())]
        cells += [
            f"{median(steps):.0f}" if steps else "",
            f"{mean(f['confidence'] for f in firsts):.2f}" if firsts else "",
        ]
        cells.append(", ".join(f"{k} {n}" for k, n in rules.most_common()))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def confusions(runs: list[Run]) -> list[str]:
    """Which names are taken for which."""
    wrong = Counter((r.case.name, r.first) for r in runs if not r.right)
    lines = ["| is | was named | runs |", "|---|---|---|"]
    return lines + [f"| {is_} | {named} | {n} |" for (is_, named), n in wrong.most_common()]


def reliability(runs: list[Run]) -> list[str]:
    """How often a first finding of a given confidence is right; on a healthy run an error or a warning is wrong."""
    said = [
        ((r.alarms or r.findings)[0]["confidence"], r.right)
        for r in runs
        if r.alarms or (not r.case.healthy and r.findings)
    ]
    lines = ["| confidence | findings | mean confidence | right |", "|---|---|---|---|"]
    for low, high in pairwise(BINS):
        inside = [(c, ok) for c, ok in said if low <= c < high]
        if inside:
            cells = [f"{low:.2f} to {min(high, 1):.2f}", str(len(inside))]
            cells += [f"{mean(c for c, _ in inside):.3f}", f"{mean(ok for _, ok in inside):.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def costs(runs: list[Run]) -> list[str]:
    """Overhead as the reports give it, and the seconds of the trials that decided."""
    overheads = [r.report["overhead"] for r in runs if r.report and r.report["overhead"] is not None]
    trials = [t["seconds"] for r in runs for f in r.findings[:1] if (t := f["trial"]) and "seconds" in t]
    lines = [f"- whole process under the doctor: {median(r.seconds for r in runs):.1f} s in the median"]
    if overheads:
        lines.append(
            f"- overhead that the reports give: {median(overheads):.2f} in the median, at most {max(overheads):.2f}"
        )
    if trials:
        lines.append(f"- deciding trial: {median(trials):.1f} s in the median, at most {max(trials):.1f} s")
    return lines


def write(folder: Path, facts: dict, runs: list[Run]) -> None:
    """The page and every run."""
    lines = ["# Diagnosis", "", *(__doc__ or "").splitlines()[2:7], "", *circumstances(facts), "", *summary(runs), ""]
    lines += [*costs(runs), "", "## Cases", "", *per_case(runs), "", "## Confusions", "", *confusions(runs), ""]
    lines += ["## Confidence", "", *reliability(runs)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diagnosis.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [
        {"case": r.case.id, "name": r.case.name, "seed": r.seed, "right": r.right, "first": r.first}
        | {"seconds": round(r.seconds, 2), "fired": r.fired, "report": r.report}
        for r in runs
    ]
    text = json.dumps({"machine": facts, "runs": rows}, indent=1, ensure_ascii=False)
    (folder / "diagnosis.json").write_text(text + "\n", encoding="utf-8")


def main() -> None:
    """Run what is missing, then write."""
    parser = argparse.ArgumentParser(description="Measure how often the doctor names the right fault.")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist and cifar10_small")
    parser.add_argument("--only", nargs="*", help="cases, faults or architectures")
    parser.add_argument("--development", action="store_true", help="leave the held-out architectures unseen")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; times are only right with one")
    parser.add_argument("--no-peer", action="store_true", help="leave the peer's rules out")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    prepare(args.data)
    import pellucid

    facts = machine()
    versions = {"doctor": digest(*(Path(pellucid.__file__).parent / "doctor").rglob("*.py")), "peer": digest(PEER)}
    seen = [case for case in cases(args.only) if not (args.development and case.held_out)]
    chosen = [(case, seed) for seed in range(args.seeds) for case in seen]
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda one: measure(*one, versions, not args.no_peer), chosen))
    write(args.results, facts | {"seeds": args.seeds}, runs)
    print("\n".join([*summary(runs), "", *costs(runs), "", *confusions(runs)]))


if __name__ == "__main__":
    main()
