"""The cases of the benchmark of diagnosis: their table, their data, and how a script is run and measured."""

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
FAULTS = HERE / "faults"
WORK = HERE / ".envs" / "diagnosis"  # prepared data, and one file a finished run
DATA = WORK / "data"


@dataclass(frozen=True)
class Case:
    """A row of faults/README.md. `figure` is how the case is verified, see there."""

    id: str
    name: str
    accepted: frozenset[str]
    architecture: str
    optimizer: str
    held_out: bool
    figure: str

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.name == "healthy"

    @property
    def script(self) -> Path:
        """Its file."""
        return FAULTS / f"{self.id}.py"

    @property
    def patch(self) -> Path:
        """What repairs it, as a unified diff."""
        return FAULTS / "fixes" / f"{self.id}.patch"


def cases(only: list[str] | None = None) -> list[Case]:
    """The rows of the table; `only` takes ids, numbers, names of faults and architectures."""
    rows = re.findall(r"^\| (case_\d+) \|(.*)\|$", (FAULTS / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    found = []
    for identity, rest in rows:
        name, also, architecture, optimizer, held, figure, _ = (cell.strip() for cell in rest.split(" | "))
        accepted = frozenset({name, *filter(None, also.split(", "))})
        found.append(Case(identity, name, accepted, architecture, optimizer, held == "yes", figure))
    if not only:
        return found
    chosen = [c for c in found if {c.id, c.id[5:], c.id[5:].lstrip("0"), c.name, c.architecture} & set(only)]
    return chosen or sys.exit(f"No case is called {', '.join(only)}.")


def prepare(source: Path) -> None:
    """Write the arrays that the cases read: `mnist.npz`, `cifar.npz`, and labels of poorer quality."""
    if (DATA / "done").exists():
        return
    DATA.mkdir(parents=True, exist_ok=True)
    print("preparing the data …", flush=True)
    digits = {}
    for split, prefix in (("train", "train"), ("valid", "t10k")):
        digits[f"x_{split}"] = idx(source / "mnist" / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        digits[f"y_{split}"] = idx(source / "mnist" / f"{prefix}-labels-idx1-ubyte.gz", 8).astype(np.int64)
    np.savez(DATA / "mnist.npz", **digits)
    pictures = {}
    for split in ("train", "valid"):
        folders = sorted(f for f in (source / "cifar10_small" / split).iterdir() if f.is_dir())
        files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.iterdir())]
        pictures[f"x_{split}"] = np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])
        pictures[f"y_{split}"] = np.array([label for _, label in files], dtype=np.int64)
    np.savez(DATA / "cifar.npz", **pictures)
    true, rng = digits["y_train"], np.random.default_rng(0)
    other = (true + rng.integers(1, 10, len(true))) % 10
    np.savez(DATA / "mnist_crowd.npz", labels=np.where(rng.random(len(true)) < 0.4, other, true))
    np.savez(DATA / "mnist_web.npz", labels=np.where(rng.random(len(true)) < 0.35, (true + 1) % 10, true))
    (DATA / "done").touch()


def idx(path: Path, header: int) -> np.ndarray:
    """Bytes of an idx file after its header."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


@dataclass(frozen=True)
class Finished:
    """A process that has ended: exit code (None: stopped at the time limit), what it printed, seconds, peak MiB.

    `cpu_s` are the seconds of processor time, which other programs on the machine hardly change.
    """

    code: int | None
    output: str
    errors: str
    seconds: float
    cpu_s: float
    peak_mib: float


def run(command: list[str | Path], seed: int, limit_s: float = 900) -> Finished:
    """Run a command with a case's surroundings: data, seed, and two threads unless OMP_NUM_THREADS says otherwise."""
    fixed = {"FAULTS_DATA": str(DATA), "SEED": str(seed), "PYTHONWARNINGS": "ignore"}
    env = {"OMP_NUM_THREADS": "2"} | os.environ | fixed
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        start = time.perf_counter()
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                list(map(str, command)), env=env, cwd=folder, stdout=stdout, stderr=stderr, start_new_session=True
            )
        ended, status, used = 0, 0, None
        while not ended and time.perf_counter() - start < limit_s:
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
            time.sleep(0 if ended else 0.02)
        seconds = time.perf_counter() - start
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)  # with what it started
            _, _, used = os.wait4(process.pid, 0)
        code = os.waitstatus_to_exitcode(status) if ended else None
        text = [path.read_text(encoding="utf-8", errors="replace") for path in (out, err)]
    assert used is not None
    return Finished(code, *text, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def bare(case: Case, seed: int, fixed: bool = False) -> Finished:
    """Run a case without anything else, as it is or repaired."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(shutil.copy(case.script, folder))
        if fixed:
            subprocess.run(["patch", "-s", str(script), str(case.patch)], check=True)
        return run([sys.executable, script, "--seed", str(seed)], seed)


def last_number(output: str) -> float | None:
    """The last number that a script printed, nan and inf included."""
    numbers = re.findall(r"(?<![\w.])[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)(?![\w])", output, re.IGNORECASE)
    return float(numbers[-1]) if numbers else None
