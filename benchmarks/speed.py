"""Measure pellucid's speed claims side by side with its peers and write results/speed.md and results/speed.json.

The model is the chapter's network with batch normalisation; an epoch trains on 60,000 MNIST images and validates on
10,000. The claims, one section each (`--only SECTION`):

- `bare`: with a warm pixel store an epoch takes at most 1.10 times (batch size 512) and 1.15 times (64) as long as in a
  loop written by hand over decoded tensors, and the process needs at most 200 MB more memory.
- `peers`: it is at least 7 times faster than fastai and 4 times faster than ImageFolder + DataLoader; Lightning beside.
- `start`: from PNG files with nothing stored to the end of the first epoch, at least 3 times faster than fastai; with a
  warm store, the process from start to end of one epoch takes at most a third of fastai's time.
- `import`: `import pellucid` adds at most 0.3 s to `import torch`.
- `scaling`: an epoch's time grows with the number of images, not faster: µs per image at 70,000 is at most 1.25 times
  the one at 10,000.

Every peer runs in its own virtual environment with pinned versions and in its own process, on two threads. Machines are
noisy, so peers alternate (A B C A B C …), a ratio compares two runs of one round, and its median over the rounds is
judged. Epoch times leave out the first epoch of a process. All start from the same PNG files, read once beforehand so
that they lie in the operating system's cache.

    python benchmarks/speed.py --quick --only bare
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

from environments import ENVS, HERE, PEERS, circumstances, output, prepared, python
from rows import Row, finish

SIZES = (10_000, 20_000, 40_000, 70_000)
MEMORY_MIB = 200e6 / 2**20
Run = dict  # what a peer prints, with wall_s and what it was asked for


@dataclass(frozen=True)
class Peer:
    """A script of peers/ and the environment it runs in."""

    name: str
    environment: str
    script: str
    options: tuple[str, ...] = ()


PELLUCID = Peer("pellucid", "pellucid", "pellucid_peer.py")
BARE = Peer("bare loop", "bare", "bare.py")
FOLDER = Peer("ImageFolder + DataLoader", "imagefolder", "imagefolder.py")
FASTAI = Peer("fastai", "fastai", "fastai_peer.py")
LIGHTNING = Peer("Lightning, tensors", "lightning", "lightning_peer.py")
LIGHTNING_FOLDER = Peer("Lightning, ImageFolder", "lightning", "lightning_peer.py", ("--mode", "imagefolder"))


@dataclass
class Bench:
    """The files, the number of rounds, and every run so far."""

    data: Path
    rounds: int
    runs: list[Run] = field(default_factory=list)

    def run(self, peer: Peer, section: str, bs: int = 512, epochs: int = 1, limit: int = 0, fresh: bool = False) -> Run:
        """Run one peer; `fresh` gives pellucid an empty cache folder, so that it has to decode."""
        command = [str(python(peer.environment)), str(PEERS / peer.script), *peer.options]
        command += ["--data", str(self.data), "--tensors", str(ENVS / "mnist.pt")]
        command += ["--bs", str(bs), "--epochs", str(epochs), *(["--limit", str(limit)] if limit else [])]
        with tempfile.TemporaryDirectory(dir=ENVS) as empty:  # on the same disk as the environments
            environment = os.environ | ({"PELLUCID_HOME": empty} if fresh else {})
            start = perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            wall_s = perf_counter() - start
        if done.returncode:
            sys.exit(f"{peer.name} failed:\n{done.stderr[-3000:]}")
        asked = {"section": section, "peer": peer.name, "bs": bs, "limit": limit, "fresh": fresh}
        run = asked | {"wall_s": round(wall_s, 3)} | json.loads(done.stdout.strip().splitlines()[-1])
        self.runs.append(run)
        times = " ".join(f"{seconds:.2f}" for seconds in run["epoch_s"])
        print(f"  {peer.name:24} bs {bs:3} {limit or '':>6} epochs {times} whole process {wall_s:.1f} s", flush=True)
        return run


def warm_s(run: Run) -> float:
    """Seconds of an epoch, the first one left out."""
    return median(run["epoch_s"][1:])


def bare(bench: Bench) -> list[Row]:
    """Compare with the loop by hand; its limits are tight and its runs short, so three times the rounds."""
    rows = []
    for bs, limit in ((512, 1.10), (64, 1.15)):
        ours, theirs = [], []
        for _ in range(3 * bench.rounds):
            ours.append(bench.run(PELLUCID, "bare", bs, epochs=3))
            theirs.append(bench.run(BARE, "bare", bs, epochs=3))
        times = [warm_s(run) for run in ours], [warm_s(run) for run in theirs]
        memory = [run["peak_rss_mib"] for run in ours], [run["peak_rss_mib"] for run in theirs]
        rows += [
            Row(f"warm epoch, bs {bs}: pellucid / bare loop", *times, "ratio", limit),
            Row(f"peak memory, bs {bs}: pellucid minus bare loop", *memory, "difference", MEMORY_MIB, "MiB"),
        ]
    return rows


def peers(bench: Bench) -> list[Row]:
    """Compare with the libraries and with the tutorial's way; the slow ones run two epochs instead of four."""
    limits = {FASTAI: 7, FOLDER: 4, LIGHTNING: None, LIGHTNING_FOLDER: None}
    rows = []
    for bs in (512, 64):
        times: dict[Peer, list[float]] = {peer: [] for peer in (PELLUCID, *limits)}
        for _ in range(bench.rounds):
            for peer, values in times.items():
                values.append(warm_s(bench.run(peer, "peers", bs, epochs=4 if peer in (PELLUCID, LIGHTNING) else 2)))
        for peer, limit in limits.items():
            claim = f"warm epoch, bs {bs}: {peer.name} / pellucid"
            rows.append(Row(claim, times[PELLUCID], times[peer], "times faster", limit))
    return rows


def start(bench: Bench) -> list[Row]:
    """Compare the first run ever, and a whole process on a warm store, with fastai's one-epoch script."""
    first, warm, fastai = [], [], []
    for _ in range(bench.rounds):
        first.append(bench.run(PELLUCID, "start", fresh=True)["first_s"])
        warm.append(bench.run(PELLUCID, "start")["wall_s"])
        fastai.append(bench.run(FASTAI, "start"))
    first_s, whole_s = [run["first_s"] for run in fastai], [run["wall_s"] for run in fastai]
    return [
        Row("first run, nothing stored: fastai / pellucid", first, first_s, "times faster", 3),
        Row("whole process of one epoch, warm store: pellucid / fastai", warm, whole_s, "ratio", 1 / 3),
    ]


IMPORTS = """
from time import perf_counter as _now
_times = [_now()]
import torch; _times.append(_now())
import pellucid; _times.append(_now())
from pellucid.vision.all import *; _times.append(_now())
print([_time - _times[0] for _time in _times[1:]])
"""


def imports(bench: Bench) -> list[Row]:
    """Time what pellucid's imports add in a process that has imported torch."""
    samples = []
    for _ in range(3 * bench.rounds + 1):
        samples.append(json.loads(output(python("pellucid"), "-c", IMPORTS)))
        print("  import torch, then pellucid, then all:", *(f"{seconds:.3f}" for seconds in samples[-1]), flush=True)
    torch_s, package_s, all_s = (list(times) for times in zip(*samples[1:], strict=True))  # the first fills the cache
    return [
        Row("import pellucid minus import torch", package_s, torch_s, "difference", 0.3),
        Row("from pellucid.vision.all import * minus import torch", all_s, torch_s, "difference"),
    ]


def scaling(bench: Bench) -> list[Row]:
    """Time pellucid on growing subsets, each from its own warm store, and compare µs per image."""
    times: dict[int, list[float]] = {size: [] for size in SIZES}
    per_image: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(bench.rounds):
        for size in SIZES:
            times[size].append(warm_s(bench.run(PELLUCID, "scaling", epochs=4, limit=size)))
            per_image[size].append(times[size][-1] * 1e6 / size)
    least = SIZES[0]
    rows = [Row(f"epoch, {size:,} / {least:,} images", times[size], times[least], "ratio") for size in SIZES[1:]]
    for size in SIZES[1:]:
        claim, limit = f"time per image, {size:,} / {least:,} images", 1.25 if size == SIZES[-1] else None
        rows.append(Row(claim, per_image[size], per_image[least], "ratio", limit, "µs"))
    return rows


@dataclass(frozen=True)
class Section:
    """A function that measures some rows, and the environments it needs beside pellucid's."""

    measure: Callable[[Bench], list[Row]]
    environments: tuple[str, ...] = ()


SECTIONS = {
    "bare": Section(bare, ("bare",)),
    "peers": Section(peers, ("fastai", "imagefolder", "lightning")),
    "start": Section(start, ("fastai",)),
    "import": Section(imports),
    "scaling": Section(scaling),
}


def find_data() -> Path:
    """Let pellucid unpack MNIST as PNG files."""
    printed = output(python("pellucid"), "-c", "import pellucid as p; print(p.untar_data(p.URLs.MNIST))")
    return Path(printed.strip().splitlines()[-1])


def warm_up(bench: Bench, sections: list[str]) -> None:
    """Fill the operating system's file cache, byte-compile the packages and fill pellucid's store, all untimed."""
    print("warming up …", flush=True)
    n_files = sum(1 for file in bench.data.rglob("*.png") if file.read_bytes())
    if n_files != SIZES[-1]:
        sys.exit(f"expected {SIZES[-1]:,} PNG files in {bench.data}, found {n_files:,}")
    wanted = {name for section in sections for name in SECTIONS[section].environments}
    for peer in (PELLUCID, BARE, FOLDER, FASTAI, LIGHTNING):
        if peer is PELLUCID or peer.environment in wanted:
            bench.run(peer, "warm-up", limit=0 if peer in (PELLUCID, BARE) else 7_000)


def main() -> None:
    """Prepare, measure the sections asked for, write the results, and exit with 1 if a claim fails."""
    parser = argparse.ArgumentParser(description="Measure pellucid's speed claims.")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; `bare` and `import` do three times as many")
    parser.add_argument("--quick", action="store_true", help="one round, a look only")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="measure this section; may be repeated")
    parser.add_argument("--data", type=Path, help="folder with training/ and testing/ (default: unpacked by pellucid)")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    sections = args.only or list(SECTIONS)
    environments = sorted({"pellucid", *(name for section in sections for name in SECTIONS[section].environments)})
    facts, packages = prepared(environments)
    bench = Bench(args.data or find_data(), 1 if args.quick else args.repeats)
    warm_up(bench, sections)
    rows = []
    for section in sections:
        print(f"{section} …", flush=True)
        rows += SECTIONS[section].measure(bench)
    finish(args.results, "speed", describe(facts, packages), rows, machine=facts, versions=packages, runs=bench.runs)


def describe(facts: dict, packages: dict[str, dict[str, str]]) -> str:
    """Head of the result page: what was measured, where, when and with what."""
    lines = [
        "# Speed",
        "",
        "MNIST, the chapter's network with batch normalisation; an epoch trains on 60,000 images and validates on",
        "10,000. Cells show the median (minimum to maximum) of n rounds. Comparisons pair runs of one round; their",
        "median is judged. Written by `python benchmarks/speed.py`, whose first lines say how.",
        "",
        *circumstances(facts, packages),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
