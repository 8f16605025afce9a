"""Small photos of two classes, and a learner of a small body and a linear head on them."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import nn

from pellucid.vision.all import ImageDataLoaders, Learner, Normalize, Resize, accuracy, create_head, default_split


def write_photos(folder):
    """40 photos of two classes, the second with a bright left half."""
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 120, (24, 24, 3), np.uint8)
        pixels[:, :12] += np.uint8(100 * (i % 2))
        file = folder / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return folder


def body() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU())


def learner(path, size: int = 16, head=None, cbs=None, **options) -> Learner:
    loaders = {"valid_pct": 0.25, "seed": 0, "item_tfms": Resize(size), "batch_tfms": Normalize(), "bs": 8}
    dls = ImageDataLoaders.from_folder(path, **loaders | options)
    model = nn.Sequential(body(), head or create_head(12, 2, [], ps=0.1, concat_pool=False))
    learn = Learner(dls, model, metrics=accuracy, splitter=default_split, train_bn=False, cbs=cbs)
    learn.no_bar().__enter__(), learn.no_logging().__enter__()
    learn.freeze()
    return learn
