"""Where a picture goes: into a file, down a pipe, or onto the terminal."""

from __future__ import annotations

import re
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from pellucid.errors import UsageError
from pellucid.files import result_file
from pellucid.output import is_terminal, lost, say
from pellucid.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")
TERMINAL = Path("-")
DPI = 100
MOST_PIXELS = 1200, 2000  # of a picture whose size was not asked for
SQUEEZE = 1.8
_LIMITS = 50, 20_000


def check_target(target: Path) -> None:
    """Make sure that a picture can have this name, before it is drawn.

    Raises:
        UsageError: an ending of no picture.
    """
    if target != TERMINAL and target.suffix.lower() not in PICTURES:
        raise UsageError(f"{printable(target)}: a picture needs the ending .png, .svg or .pdf")


def read_size(text: str | None) -> tuple[int, int] | None:
    """Width and height in pixels, of words such as 1200x800.

    Raises:
        UsageError: it is not of that form, or too small or large to draw.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text)
    width, height = map(int, found.groups()) if found else (0, 0)
    low, high = _LIMITS
    if not (low <= width <= high and low <= height <= high):
        raise UsageError(f"--size {text}: give width and height in pixels, such as 1200x800, from {low} to {high:,}")
    return width, height


def fit(figure: Figure, size: tuple[int, int] | None) -> float:
    """Give a figure the size that was asked for, or shrink it to one that fits on a screen.

    It is squeezed, so that its text stays readable, and beyond that drawn smaller, so that its panels keep room.

    Returns:
        The dots per inch to save it with.
    """
    own = [DPI * inches for inches in figure.get_size_inches()]
    wanted = size or [min(each, most) for each, most in zip(own, MOST_PIXELS, strict=True)]
    dpi = DPI * min(1.0, SQUEEZE * min(wanted[0] / own[0], wanted[1] / own[1]))
    width, height = ((pixels + 0.01) / dpi for pixels in wanted)  # whole pixels are what is left of fractions
    figure.set_size_inches(width, height)
    return dpi


def save_picture(figure: Figure, target: Path, dpi: float) -> None:
    """Write a figure into a file, whole, or to standard output: on a terminal as coloured blocks, else as PNG.

    Raises:
        UsageError: the file cannot be written.
    """
    if target != TERMINAL:
        with result_file(target) as scratch:
            figure.savefig(scratch, dpi=dpi, format=target.suffix.lower().removeprefix("."))
    elif is_terminal(sys.stdout):
        say(blocks(figure, shutil.get_terminal_size().columns).removesuffix("\n"))
    else:
        png = BytesIO()
        figure.savefig(png, dpi=dpi, format="png")
        try:
            sys.stdout.buffer.write(png.getvalue())
            sys.stdout.buffer.flush()
        except OSError as error:
            lost.append(error)


def blocks(figure: Figure, columns: int) -> str:
    """A figure as text: each character is two pixels, one above the other, in the terminal's 24-bit colours."""
    import numpy as np
    from PIL import Image

    width, height = figure.get_size_inches()
    down = max(1, round(columns * height / width / 2))  # a character is about twice as high as wide
    png = BytesIO()
    figure.savefig(png, dpi=DPI, format="png")
    pixels = np.asarray(
        Image.open(png, formats=["PNG"]).convert("RGB").resize((columns, 2 * down), Image.Resampling.BOX)
    )
    rows = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        pairs = zip(upper, lower, strict=True)
        cells = (f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀" for a, b in pairs)
        rows.append("".join(cells) + "\x1b[0m\n")
    return "".join(rows)
