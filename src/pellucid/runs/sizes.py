"""The side that images are brought to: larger than their files are, they cost time and show nothing new."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

from PIL import Image

from pellucid.data.formats import FORMATS, IMAGE_EXTENSIONS
from pellucid.data.opening import DAMAGE
from pellucid.output import say

USUAL_SIDE = 128
SMALLEST_SIDE = 32  # below, `small_resnet` has no map left to look at
SAMPLE, PER_FOLDER = 100, 5


def fitting_side(asked: int | None, files: Iterable[Path]) -> int:
    """The side to train at: as asked, or 128 pixels, but no more than files have; says so where that is not 128.

    Args:
        asked: The side a user asked for; None leaves it to the files.
        files: Some of the images.
    """
    sides = [side for file in files if (side := _short_side(file))]
    typical = round(median(sides)) if sides else USUAL_SIDE
    if asked is not None:
        if typical < asked:
            cost = f"{(asked / typical) ** 2:.0f} times the work of --size {typical}"
            say(f"half of the images have no more than {typical} pixels: --size {asked} enlarges them, for {cost}")
        return asked
    side = min(USUAL_SIDE, max(SMALLEST_SIDE, typical))
    if side < USUAL_SIDE:
        what = "enlarged" if typical < side else "brought"
        say(f"half of the images have no more than {typical} pixels: all are {what} to {side} (--size changes that)")
    return side


def some_images(root: Path) -> Iterator[Path]:
    """Up to a hundred image files under a folder, a few of each of its folders."""
    found = (
        Path(folder, name)
        for folder, _, names in os.walk(root)
        for name in islice((n for n in names if os.path.splitext(n)[1].lower() in IMAGE_EXTENSIONS), PER_FOLDER)
    )
    return islice(found, SAMPLE)


def _short_side(file: Path) -> int | None:
    """From the file's header; None for one that is reported when it is decoded."""
    try:
        if not file.is_file():
            return None
        with Image.open(file, formats=list(FORMATS)) as image:
            return min(image.size)
    except DAMAGE:
        return None
