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
