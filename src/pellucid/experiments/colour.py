"""Coloured digits: a generated set in which part of every label can only be told by hue; and colour encodings."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

INKS = ("red", "green", "blue")
HUE_SPREAD = 0.1  # of a turn, to either side of an ink's own hue
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's conversion to grey
CHUNK = 5_000


def colour_digits(digits: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Paint grey digits with coloured ink on coloured paper.

    Each digit is drawn in red, green or blue ink, and the class is both: 3 · digit + ink. An ink's hue varies by a
    tenth of a turn to either side, so that the reds lie around the place where hue jumps from 1 to 0. The paper has any
    hue and tells nothing. How bright (luma) ink and paper are is drawn without regard to hue: a grey copy of an image
    still shows the digit, and nothing of its ink.

    Args:
        digits: uint8 (image, row, column), 255 where there is ink.
        labels: Which digit, (image,).
        seed: Of inks and papers; the same seed gives the same images.

    Returns:
        uint8 RGB images (image, channel, row, column), and their classes, int64 (image,).
    """
    rng = np.random.default_rng(seed)
    n = len(digits)
    kinds = rng.integers(len(INKS), size=n)
    hues = (kinds / len(INKS) + rng.uniform(-HUE_SPREAD, HUE_SPREAD, n)) % 1
    ink = _colours(hues, rng.uniform(0.5, 0.8, n), rng.uniform(0.12, 0.28, n))
    paper = _colours(rng.uniform(size=n), rng.uniform(0.15, 0.5, n), rng.uniform(0.4, 0.55, n))
    images = np.empty((n, 3, *digits.shape[1:]), np.uint8)
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        share = digits[part, None].astype(np.float32) / 255
        painted = paper[part, :, None, None] * (1 - share) + ink[part, :, None, None] * share
        images[part] = np.rint(255 * painted)
    return images, len(INKS) * labels.astype(np.int64) + kinds


def rgb_to_hsv(x: Tensor) -> Tensor:
    """Hue, saturation and value of RGB images, all in [0, 1]: (batch, 3, row, column) to the same shape.

    Hue is in turns, red 0, green 1/3, blue 2/3, and 0 for greys.

    Source: Smith, "Color gamut transform pairs", SIGGRAPH 1978; Python's `colorsys` has the same for one pixel.
    """
    value, lead = x.max(1)
    chroma = value - x.min(1).values
    red, green, blue = x.unbind(1)
    sixths = torch.stack([green - blue, blue - red, red - green], 1).gather(1, lead[:, None])[:, 0]
    hue = (sixths / chroma.where(chroma > 0, 1.0) / 6 + lead.to(x) / 3) % 1
    return torch.stack([hue, chroma / value.where(value > 0, 1.0), value], 1)


def rgb_to_grey(x: Tensor) -> Tensor:
    """The luma of RGB images: (batch, 3, row, column) to (batch, 1, row, column)."""
    return torch.einsum("bcij,c->bij", x, x.new_tensor(LUMA))[:, None]


def rgb_to_turned_hsv(x: Tensor) -> Tensor:
    """As `rgb_to_hsv`, with the hues counted from magenta (5/6) on: the jump from 1 to 0 lies between two inks."""
    hue, rest = rgb_to_hsv(x).split((1, 2), 1)
    return torch.cat([(hue + 1 / 6) % 1, rest], 1)


ENCODINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "RGB": lambda x: x,
    "HSV": rgb_to_hsv,
    "HSV from magenta": rgb_to_turned_hsv,
    "grey": rgb_to_grey,
}


def _colours(hue: np.ndarray, saturation: np.ndarray, luma: np.ndarray) -> np.ndarray:
    """RGB colours (image, 3) of given hue, saturation and luma; the luma must be within the colour's reach."""
    from matplotlib.colors import hsv_to_rgb

    rgb = hsv_to_rgb(np.stack([hue, saturation, np.ones_like(hue)], 1))
    return (rgb * (luma / (rgb @ LUMA))[:, None]).astype(np.float32)
