"""The usual torchvision pipeline: every image decoded again in every epoch, by two worker processes."""

import argparse
from pathlib import Path

import torchvision_import  # noqa: F401  (must come before torchvision)
from common import subset
from network import MEAN, STD
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder


def loaders(args: argparse.Namespace) -> tuple[DataLoader, DataLoader]:
    """Return the training loader (shuffled, last incomplete batch dropped) and the validation loader."""
    pipeline = transforms.Compose(
        [transforms.Grayscale(), transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))]
    )
    splits = [ImageFolder(str(args.data / split), transform=pipeline) for split in ("training", "testing")]
    if args.limit:
        kept = {str(file) for file in subset([Path(file) for split in splits for file, _ in split.samples], args.limit)}
        for split in splits:
            split.samples = [sample for sample in split.samples if sample[0] in kept]
    workers = {"num_workers": 2, "persistent_workers": True}
    training = DataLoader(splits[0], args.bs, shuffle=True, drop_last=True, **workers)
    return training, DataLoader(splits[1], args.bs, **workers)
