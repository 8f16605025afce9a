"""Measure what photos cost beside pellucid's peers, and write results/photos.md and results/photos.json.

The claims, one section each (`--only SECTION`):

- `reach`: from an empty cache to an accuracy of 0.95 on ants and bees, whole process (`pellucid train --probe`): at
  least 5 times faster than fastai's `fine_tune` of the same body, and at most 1.3 times the sum of its parts, which
  are decoding every photo and one forward pass of the body for each, and for each mirror image of a training photo.
- `epoch`: an augmented training epoch of EfficientNet-Lite0 at 224 pixels takes at most 1.05 times as long as the same
  steps on one fixed batch, and is at least 1.3 times faster than in fastai and with torchvision's transforms v2.
- `cifar`: CIFAR-10 at 32 pixels, `small_resnet`, flip and crop: an epoch is at least 4 times faster than with
  torchvision's transforms v2 in a DataLoader, and 6 times faster than in fastai. Without a limit: the same beside the
  same steps on one batch, which is what no loader can save, and in the precision that `--precision auto` takes.
  Accuracies are beside each other.
- `decode`: JPEGs of twelve megapixels to 256 pixels, one core: at least twice ImageFolder's rate. How far the pixels
  are from those of a full decode is in the table.
- `memory`: what a run takes for itself does not grow with the number of photos, 5,000 and 50,000 of them.

Bodies and weights are the same in all peers; each runs in its own environment and process, on two threads. Peers
alternate, a ratio compares two runs of one round, and its median over the rounds is judged. Files are read once
beforehand, so that they lie in the operating system's cache.

    python benchmarks/photos.py --data FOLDER [--quick] [--only SECTION]

FOLDER holds `ants_bees` (train/ and valid/, the photos of PyTorch's transfer learning tutorial), `cifar10_small` (JPEGs
of CIFAR-10, train/ and valid/) and `photos` (any of ordinary size).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from time import perf_counter

from environments import ENVS, HERE, PEERS, circumstances, prepared, python
from rows import Row, finish

GOAL = 0.95
FILES = ENVS / "photos"
ENVIRONMENTS = {"pellucid": "pellucid", "fastai": "fastai", "torchvision": "imagefolder"}
FINE_TUNE_EPOCHS = 5  # fastai stops where it has the accuracy


@dataclass
class Bench:
    """The photos, the number of rounds, and every run so far."""

    data: Path
    rounds: int
    cifar_epochs: int
    runs: list[dict] = field(default_factory=list)

    def peer(self, library: str, task: str, data: Path, epochs: int = 1) -> dict:
        """Run a task of peers/photos_LIBRARY.py."""
        command = [str(python(ENVIRONMENTS[library])), str(PEERS / f"photos_{library}.py"), task, "--data", str(data)]
        command += ["--weights", str(FILES / "lite0.pth"), "--epochs", str(epochs)]
        printed, wall_s = self.process(command)
        return self.noted(library, task, {"wall_s": wall_s} | json.loads(printed.strip().splitlines()[-1]))

    def process(self, command: list[str]) -> tuple[str, float]:
        """Run a command with an empty cache of pellucid's; what it printed, and seconds."""
        with tempfile.TemporaryDirectory(dir=ENVS) as empty:
            start = perf_counter()
            done = subprocess.run(
                command, env=os.environ | {"PELLUCID_HOME": empty}, capture_output=True, text=True, check=False
            )
            wall_s = perf_counter() - start
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        return done.stdout, wall_s

    def noted(self, library: str, task: str, found: dict) -> dict:
        """Keep a run and print it."""
        self.runs.append({"peer": library, "task": task} | found)
        print(f"  {library:12} {task:8}", json.dumps(found), flush=True)
        return found


def reach(bench: Bench) -> list[Row]:
    """To an accuracy: the probe's whole process, fastai's, and the parts."""
    data, ours, theirs, parts = bench.data / "ants_bees", [], [], []
    for _ in range(bench.rounds):
        ours.append(probe(bench, data))
        theirs.append(bench.peer("fastai", "reach", data, FINE_TUNE_EPOCHS))
        parts.append(bench.peer("pellucid", "parts", data))
    wall_s, reached = [run["wall_s"] for run in ours], [run["accuracy"] for run in ours]
    best = [max(run["accuracy"]) for run in theirs]
    sums = [run["decode_s"] + run["forward_s"] for run in parts]
    return [
        Row("ants and bees to 0.95, nothing stored, whole process: fastai / pellucid", wall_s,
            [run["wall_s"] for run in theirs], "times faster", 5),
        Row("ants and bees, whole process / (decode + one forward pass a view)", wall_s, sums, "ratio", 1.3),
        Row("its accuracy: pellucid minus fastai", reached, best, "difference", None, ""),
    ]  # fmt: skip


def probe(bench: Bench, data: Path) -> dict:
    """`pellucid train --probe` on a folder."""
    with tempfile.TemporaryDirectory(dir=ENVS) as folder:
        command = [str(python("pellucid")), "-m", "pellucid", "train", str(data), "--probe", "--out", f"{folder}/run"]
        _, wall_s = bench.process(command)
        start = json.loads(Path(folder, "run", "run.json").read_text())["start"]
    return bench.noted("pellucid", "reach", {"wall_s": wall_s, "accuracy": start["accuracy"]})


def epoch(bench: Bench) -> list[Row]:
    """An augmented epoch of the whole Lite0: of four in each process the mean of the last three."""
    data, times = bench.data / "ants_bees", {"pellucid": [], "fixed": [], "fastai": [], "torchvision": []}
    for _ in range(bench.rounds):
        for library in ("pellucid", "fastai", "torchvision"):
            run = bench.peer(library, "epoch", data, 4)
            times[library].append(mean(run["trained_s"][1:]))
            times["fixed"] += [mean(run["fixed_s"][1:])] if library == "pellucid" else []
    ours = times["pellucid"]
    return [
        Row("augmented epoch, Lite0, 224 px / the same steps on one batch", ours, times["fixed"], "ratio", 1.05),
        Row("augmented epoch, Lite0, 224 px: fastai / pellucid", ours, times["fastai"], "times faster", 1.3),
        Row(
            "augmented epoch, Lite0, 224 px: torchvision v2 / pellucid", ours, times["torchvision"], "times faster", 1.3
        ),
    ]


def cifar(bench: Bench) -> list[Row]:
    """Epochs of the small network, with validation, the first one of each process left out."""
    runs: dict[str, list[dict]] = {library: [] for library in ENVIRONMENTS}
    for _ in range(bench.rounds):
        for library, found in runs.items():
            found.append(bench.peer(library, "cifar", bench.data / "cifar10_small", bench.cifar_epochs))
    times = {library: [median(run["epoch_s"][1:]) for run in found] for library, found in runs.items()}
    reached = {library: [run["accuracy"] for run in found] for library, found in runs.items()}
    fixed = [median(run["fixed_s"]) for run in runs["pellucid"]]
    rows = [Row("CIFAR-10 epoch, small_resnet / the same steps on one batch", times["pellucid"], fixed, "ratio", None)]
    autos = [run["auto"] for run in runs["pellucid"]]
    taken = f"precision auto ({', '.join(sorted({auto['precision'] for auto in autos}))})"
    times["auto"] = [median(auto["epoch_s"][1:]) for auto in autos]
    reached["auto"] = [auto["accuracy"] for auto in autos]
    for library, limit in (("torchvision", 4), ("fastai", 6)):
        for how, ours, judged in (("float32", "pellucid", limit), (taken, "auto", None)):
            claim = f"CIFAR-10 epoch, small_resnet, {how}: {library} / pellucid"
            rows.append(Row(claim, times[ours], times[library], "times faster", judged))
            claim = f"its accuracy after {bench.cifar_epochs} epochs: pellucid minus {library}"
            rows.append(Row(claim, reached[ours], reached[library], "difference", None, ""))
    return rows


def decode(bench: Bench) -> list[Row]:
    """Large JPEGs, one core."""
    ours, theirs = [], []
    for _ in range(bench.rounds):
        ours.append(bench.peer("pellucid", "decode", FILES / "large"))
        theirs.append(bench.peer("torchvision", "decode", FILES / "large"))
    times = [[1000 * run["per_image_s"] for run in runs] for runs in (ours, theirs)]
    zero = [0.0] * len(ours)
    rows = [Row("12-megapixel JPEG to 256 px, one core: ImageFolder / pellucid", *times, "times faster", 2, "ms")]
    for name, what in (("mean", "on average"), ("most", "in 99.9 % of them"), ("largest", "at most")):
        claim = f"its pixels differ from a full decode's, {what} (of 255)"
        rows.append(Row(claim, [run[name] for run in ours], zero, "difference", 1 if name == "mean" else None, ""))
    return rows


def memory(bench: Bench) -> list[Row]:
    """One epoch over few and over many photos."""
    few, many = ([bench.peer("pellucid", "memory", FILES / n) for _ in range(bench.rounds)] for n in ("few", "many"))
    claims = {
        "RssAnon": ("memory of its own after an epoch, MiB: 50,000 minus 5,000 photos", 100),
        "RssFile": ("pages of files in memory, which any other program can have, likewise", None),
    }
    return [
        Row(claim, [run[name] for run in many], [run[name] for run in few], "difference", limit, "MiB")
        for name, (claim, limit) in claims.items()
    ]


SECTIONS = {"reach": reach, "epoch": epoch, "cifar": cifar, "decode": decode, "memory": memory}


def main() -> None:
    """Prepare, measure the sections asked for, write the results, and exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description="Measure what photos cost.")
    parser.add_argument("--data", type=Path, required=True, help="folder with ants_bees, cifar10_small and photos")
    parser.add_argument("--repeats", type=int, default=3, help="rounds")
    parser.add_argument("--quick", action="store_true", help="one round and two epochs of CIFAR-10, a look only")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="measure this section; may be repeated")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    environments = sorted(ENVIRONMENTS.values())
    facts, packages = prepared(environments)
    FILES.mkdir(exist_ok=True)
    bench = Bench(args.data.resolve(), 1 if args.quick else args.repeats, 2 if args.quick else 10)
    print("warming up …", flush=True)
    for file in args.data.rglob("*.*"):
        file.read_bytes()
    bench.peer("pellucid", "make", bench.data / "photos")
    rows = []
    for section in args.only or SECTIONS:
        print(f"{section} …", flush=True)
        rows += SECTIONS[section](bench)
    finish(args.results, "photos", describe(facts, packages), rows, machine=facts, versions=packages, runs=bench.runs)


def describe(facts: dict, packages: dict[str, dict[str, str]]) -> str:
    """Head of the result page: what was measured, where, when and with what."""
    lines = [
        "# Photos",
        "",
        "Cells show the median (minimum to maximum) of n rounds. Comparisons pair runs of one round; their median is",
        "judged. Written by `python benchmarks/photos.py`, whose first lines say what each line means.",
        "",
        *circumstances(facts, packages),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
