"""Kernels that have a name, as float tensors (row, column), ready for `apply_kernel`, `feature_map` and `F.conv2d`.

They are applied as a network applies them, without being flipped (cross-correlation): an `_x` kernel is large where
values grow from left to right, a `_y` kernel where they grow from top to bottom. Where 0 is paper and 255 is ink, as in
MNIST, a top edge is where ink begins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.errors import UsageError

__all__ = [
    "bottom_edge",
    "box",
    "diag1_edge",
    "diag2_edge",
    "emboss",
    "gaussian",
    "identity",
    "laplacian",
    "laplacian_diagonal",
    "left_edge",
    "named",
    "prewitt_x",
    "prewitt_y",
    "right_edge",
    "roberts_1",
    "roberts_2",
    "scharr_x",
    "scharr_y",
    "sharpen",
    "sobel_x",
    "sobel_y",
    "top_edge",
]


def _kernel(*rows: list[int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32, device="cpu")


# The chapter's four: J. Howard and S. Gugger, "Deep Learning for Coders", chapter 13; the other two are their mirrors.
top_edge = _kernel([-1, -1, -1], [0, 0, 0], [1, 1, 1])
left_edge = _kernel([-1, 1, 0], [-1, 1, 0], [-1, 1, 0])
diag1_edge = _kernel([0, -1, 1], [-1, 1, 0], [1, 0, 0])
diag2_edge = _kernel([1, -1, 0], [0, 1, -1], [0, 0, 1])
bottom_edge = top_edge.flip(0)
right_edge = left_edge.flip(1)

# L. Roberts, "Machine perception of three-dimensional solids", 1963.
roberts_1 = _kernel([1, 0], [0, -1])
roberts_2 = _kernel([0, 1], [-1, 0])

# J. Prewitt, "Object enhancement and extraction", in Picture Processing and Psychopictorics, 1970.
prewitt_x = _kernel([-1, 0, 1], [-1, 0, 1], [-1, 0, 1])
prewitt_y = prewitt_x.T.contiguous()

# I. Sobel and G. Feldman, "A 3×3 isotropic gradient operator for image processing", 1968.
sobel_x = _kernel([-1, 0, 1], [-2, 0, 2], [-1, 0, 1])
sobel_y = sobel_x.T.contiguous()

# H. Scharr, "Optimale Operatoren in der Digitalen Bildverarbeitung", Heidelberg 2000.
scharr_x = _kernel([-3, 0, 3], [-10, 0, 10], [-3, 0, 3])
scharr_y = scharr_x.T.contiguous()

# Second differences along rows and columns; the other one adds both diagonals. R. Gonzalez and R. Woods, "Digital Image
# Processing", section "Using the second derivative for image sharpening", which also has `sharpen`.
laplacian = _kernel([0, 1, 0], [1, -4, 1], [0, 1, 0])
laplacian_diagonal = _kernel([1, 1, 1], [1, -8, 1], [1, 1, 1])

identity = _kernel([0, 0, 0], [0, 1, 0], [0, 0, 0])
sharpen = identity - laplacian
# Light from the top left; adds to 1, so that flat areas keep their brightness.
emboss = _kernel([-2, -1, 0], [-1, 1, 1], [0, 1, 2])


def box(n: int) -> Tensor:
    """Mean of n × n pixels: every entry is 1/n².

    Raises:
        UsageError: `n` is below 1.
    """
    return torch.full((_side(n), n), 1 / n**2, device="cpu")


def gaussian(n: int, sigma: float | None = None) -> Tensor:
    """Weighted mean of n × n pixels by a normal distribution around the centre; the entries add to 1.

    Args:
        n: Side in pixels.
        sigma: Standard deviation in pixels; None takes 0.15·n + 0.35, so that the kernel holds most of the bell.

    Raises:
        UsageError: `n` is below 1 or `sigma` is not above 0.

    Source: the density sampled at pixel centres and normalised; the default as OpenCV's getGaussianKernel.
    """
    sigma = 0.15 * _side(n) + 0.35 if sigma is None else sigma
    if not 0 < sigma < math.inf:
        raise UsageError(f"sigma must be a finite number above 0, not {sigma}")
    distance = torch.arange(n, dtype=torch.float64, device="cpu") - (n - 1) / 2
    weights = torch.softmax(-(distance**2) / (2 * sigma**2), 0)
    return torch.outer(weights, weights).float()


def named() -> dict[str, Tensor]:
    """Every kernel of this module by name; those that take a size at 5 × 5 pixels."""
    fixed = {name: value for name, value in globals().items() if isinstance(value, Tensor)}
    return {**fixed, "box(5)": box(5), "gaussian(5)": gaussian(5)}


def _side(n: int) -> int:
    if not isinstance(n, int) or n < 1:
        raise UsageError(f"the side of a kernel is a whole number of 1 or more, not {n!r}")
    return n
