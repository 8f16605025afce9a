"""MNIST as normalised float32 tensors in memory, for the peers that decode before the clock starts."""

import argparse
from pathlib import Path

import numpy as np
import torch
from network import MEAN, STD
from PIL import Image
from torch import Tensor

Split = tuple[Tensor, Tensor]


def decode(root: Path) -> dict[str, Tensor]:
    """Read every PNG of both splits into uint8 tensors, in a fixed random order so that a prefix is a fair subset."""
    out = {}
    for split in ("training", "testing"):
        files = sorted((root / split).glob("*/*.png"))
        files = [files[i] for i in torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()]
        pixels = np.empty((len(files), 1, 28, 28), dtype=np.uint8)
        for i, file in enumerate(files):
            with Image.open(file) as image:
                pixels[i, 0] = image
        out[f"{split}.x"] = torch.from_numpy(pixels)
        out[f"{split}.y"] = torch.tensor([int(file.parent.name) for file in files])
    return out


def load(args: argparse.Namespace) -> tuple[Split, Split]:
    """Return (x, y) of the training and of the validation split, from `--tensors` if that file exists."""
    if args.tensors and args.tensors.exists():
        raw = torch.load(args.tensors, weights_only=True)
    else:
        raw = decode(args.data)
        if args.tensors:
            torch.save(raw, args.tensors)
    n_train = args.limit * 6 // 7 if args.limit else None
    n_valid = args.limit - n_train if args.limit else None
    splits = []
    for split, n in (("training", n_train), ("testing", n_valid)):
        x = raw.pop(f"{split}.x")[:n].float().div_(255).sub_(MEAN).div_(STD)
        splits.append((x, raw.pop(f"{split}.y")[:n].clone()))
    return splits[0], splits[1]
