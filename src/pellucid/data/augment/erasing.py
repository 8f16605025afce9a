"""Random erasing (Zhong et al., arXiv:1708.04896)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.data.augment.draws import check_share, uniform
from pellucid.errors import UsageError


class RandomErasing:
    """Batch transform for training: puts noise in the place of rectangles.

    The noise has the mean and the standard deviation of each channel of the image, so that it makes no difference
    whether batches are normalised before or after it.

    Args:
        p: Share of the images that are changed.
        sl: Smallest share of an image's area that is erased.
        sh: Largest share.
        min_aspect: Least height over width of a rectangle; the greatest is its inverse.
        max_count: Most rectangles in an image; they have the area together.

    Raises:
        UsageError: an argument that makes no sense.
    """

    split_idx = 0

    def __init__(self, p: float = 0.5, sl: float = 0.0, sh: float = 0.3, min_aspect: float = 0.3, max_count: int = 1):
        check_share("p", p)
        if not 0 <= sl <= sh <= 1:
            raise UsageError(f"shares of the area that are erased lie between 0 and 1, got sl={sl} and sh={sh}")
        if not 0 < min_aspect <= 1 or max_count < 1:
            raise UsageError(
                f"min_aspect must be above 0 and at most 1, and max_count at least 1, got {min_aspect} and {max_count}"
            )
        self.p, self.sl, self.sh, self.min_aspect, self.max_count = p, sl, sh, min_aspect, max_count

    def __call__(self, x: Tensor) -> Tensor:
        """Erase in each image of a batch (batch, channel, row, column)."""
        hit = (uniform(0, 1, len(x)) < self.p).nonzero().flatten().tolist()
        if not hit:
            return x
        out = x.clone()
        for i in hit:
            std, mean = torch.std_mean(x[i].float(), (1, 2), correction=0, keepdim=True)
            for top, left, height, width in self.rectangles(x.shape[2], x.shape[3]):
                noise = torch.randn(x.shape[1], height, width, device="cpu").to(x.device)
                out[i, :, top : top + height, left : left + width] = (noise * std + mean).to(x.dtype)
        return out

    def rectangles(self, height: int, width: int) -> list[tuple[int, int, int, int]]:
        """Draw (top, left, height, width) of each rectangle of an image."""
        count = int(torch.randint(1, self.max_count + 1, (), device="cpu"))
        edge = -math.log(self.min_aspect)
        found = []
        for _ in range(count):
            area = uniform(self.sl, self.sh, 1).item() * height * width / count
            aspect = math.exp(uniform(-edge, edge, 1).item())
            rows, columns = min(height, round(math.sqrt(area * aspect))), min(width, round(math.sqrt(area / aspect)))
            top, left = (int(torch.randint(room + 1, (), device="cpu")) for room in (height - rows, width - columns))
            found.append((top, left, rows, columns))
        return found
