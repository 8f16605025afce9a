"""Small pictures of noise in two classes, for tests that look at numbers rather than at what is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_pets(folder: Path, n: int) -> Path:
    """Write `n` PNG files of 6×6 pixels for each class, cat and dog, into a folder; returns it."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def write_noise(folder: Path, lighter: int = 0) -> Path:
    """Write forty grey PNG files of 8×8 pixels for each of the classes a and b; an epoch of them takes milliseconds.

    Args:
        folder: Where; returned.
        lighter: The least value of the second class: above 0, there is something to learn.
    """
    rng = np.random.default_rng(0)
    for n in range(80):
        file = folder / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(lighter * (n % 2), 230, (8, 8), np.uint8)).save(file)
    return folder
