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
# What a body learnt from photos of 224 pixels sees in enlarged ones; 32-pixel photos of CIFAR-10 gain up to here.
ENLARGED = 3
STEP = 32  # pixels, between neighbours in the last maps of most pretrained bodies
SAMPLE, PER_FOLDER = 100, 5


def typical_side(files: Iterable[Path]) -> int | None:
    """Median of the short sides of some files, in pixels; None where none of them can be read."""
    sides = [side for file in files if (side := _short_side(file))]
    return round(median(sides)) if sides else None


def fitting_side(asked: int | None, typical: int | None, usual: int = USUAL_SIDE, *, pretrained: bool = False) -> int:
    """The side to train at: as asked, or the usual one where files have enough pixels; says so where it is another.

    Args:
        asked: The side a user asked for; None leaves it to the files.
        typical: Of the files, see `typical_side`.
        usual: Where files have enough pixels.
        pretrained: Enlarge files, up to three times, for a body that has learnt from larger ones.
    """
    typical = typical or usual
    if asked is not None:
        if typical < asked and not pretrained:
            cost = f"{(asked / typical) ** 2:.0f} times the work of --size {typical}"
            say(f"half of the images have no more than {typical} pixels: --size {asked} enlarges them, for {cost}")
        return asked
    least = max(2 * STEP, STEP * (ENLARGED * typical // STEP)) if pretrained else max(SMALLEST_SIDE, typical)
    side = min(usual, least)
    if side < usual:
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
