"""Real trainings, killed at random moments and gone on with, end in the bits of those that were not.

`PELLUCID_KILLS=40 pytest tests/journeys/test_killed.py -s` kills 40 times a case and says when.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hanging import HUNG_S
from pellucid.runs import load_record
from pets import write_noise

N_KILLS = int(os.environ.get("PELLUCID_KILLS", "3"))
CASES = {
    "small": "--size 0 --epochs 12 --bs 8 --stats --patience 9 --augment light --balance loss",
    "photos": "--size 64 --freeze-epochs 3 --epochs 2 --bs 8 --augment strong",
}


def write_stripes(folder: Path) -> Path:
    """48 photos of 72 pixels, of two kinds of stripes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:72, :72]
    for i in range(48):
        wave = (y, x)[i % 2] * rng.uniform(0.5, 0.9) + rng.uniform(0, 6)
        pixels = np.stack([127 + 90 * np.sin(wave)] * 3, -1) + rng.normal(0, 40, (72, 72, 3))
        file = folder / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
    return folder


def run(words: list[object], folder: Path, home: Path, kill_after: float | None = None) -> str | None:
    """What a command printed; None if it was killed before its end."""
    command = [sys.executable, "-m", "pellucid", *map(str, words)]
    out = folder / "out.txt"
    with out.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PELLUCID_HOME": str(home)}
        )
        try:
            process.wait(HUNG_S if kill_after is None else kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
    assert process.returncode == 0, out.read_text()
    return out.read_text()


def outcome(folder: Path, printed: str) -> dict[str, Any]:
    about = json.loads((folder / "run.json").read_text())
    for each in [*about["results"], about.get("start", {})]:
        each.pop("seconds", None)
    table = [line.rsplit(maxsplit=1)[0] for line in printed.splitlines() if re.match(r"\d+ +\d+\.", line)]
    record = {name: value.tobytes() for name, value in load_record(folder).items()}
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "record": record,
        "run": about,
        "table": table,
        "files": sorted(file.name for file in folder.iterdir()),
    }


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_training_that_is_interrupted_goes_on_where_it_was(name, tmp_path):
    write_noise(tmp_path / "images", 40)
    command = ["train", "images", *CASES["small"].split()]
    expected = outcome(tmp_path / "whole", run([*command, "--out", "whole"], tmp_path, tmp_path / "home") or "")
    words = [sys.executable, "-m", "pellucid", *command, "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("3 "):
            process.send_signal(getattr(signal, name))
            break
    said = process.communicate(timeout=HUNG_S)[1]
    assert process.returncode == 1 and "pellucid train --resume run goes on" in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["settings"]["interrupted"] is True
    found = outcome(tmp_path / "run", run(["train", "--resume", "run"], tmp_path, tmp_path / "home") or "")
    assert found == expected


@pytest.mark.parametrize("case", CASES)
def test_a_training_that_is_killed_ends_as_if_it_had_not_been(case, tmp_path):
    write_noise(tmp_path / "images", 40) if case == "small" else write_stripes(tmp_path / "images")
    command = ["train", "images", *CASES[case].split(), "--checkpoint-s", 0.2]
    began = time.monotonic()
    expected = outcome(tmp_path / "whole", run([*command, "--out", "whole"], tmp_path, tmp_path / "home") or "")
    took, moments = time.monotonic() - began, random.Random()
    kills, chain = 0, 0
    while kills < N_KILLS:
        chain += 1
        folder, printed = tmp_path / f"run{chain}", None
        while printed is None:
            begun = (folder / "checkpoints" / "training.json").exists()
            words = ["train", "--resume", folder.name] if begun else [*command, "--out", folder.name]
            after = moments.uniform(0, took) if kills < N_KILLS else None
            printed = run(words, tmp_path, tmp_path / f"home{chain}", after)
            kills += printed is None
            if (folder / "run.json").exists() and not (folder / "checkpoints").exists():  # killed when all was done
                printed = (tmp_path / "out.txt").read_text()
            elif printed is None:
                steps = [each.name for each in (folder / "checkpoints").glob("*step*")]
                print(f"{case}: killed after {after:.2f} s; kept {', '.join(sorted(steps)) or 'nothing'}")
        found = outcome(folder, printed)
        rows = found.pop("table")
        assert rows == expected["table"][-len(rows) :] and rows
        for name, value in found.items():
            assert value == expected[name], f"{name} differs after {kills} kills"
