"""photos.py's lines with torchvision: ImageFolder, transforms v2, DataLoader with two workers, and a loop by hand."""

from time import perf_counter

import torch
import torch.nn.functional as F
import torchvision_import  # noqa: F401  (must come before torchvision)
from photos_common import CIFAR_BS, CIFAR_LR, LITE_BS, MEAN, STD, arguments, cifar_network, lite0_body, report
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

CIFAR = [0.491, 0.482, 0.447], [0.247, 0.243, 0.261]


def loader(folder, transforms, bs, training):
    """Batches of a folder of class folders."""
    pipeline = v2.Compose([v2.ToImage(), *transforms])
    return DataLoader(
        ImageFolder(str(folder), transform=pipeline),
        bs,
        shuffle=training,
        drop_last=training,
        num_workers=2,
        persistent_workers=True,
    )


def normalised(mean, std):
    """Floats, as the network takes them."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]


def train(model, batches, optimizer, schedule=None):
    """One pass."""
    model.train()
    for xb, yb in batches:
        F.cross_entropy(model(xb), yb).backward()
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()


@torch.inference_mode()
def validate(model, batches):
    """Accuracy."""
    model.eval()
    return sum(float((model(xb).argmax(1) == yb).sum()) for xb, yb in batches) / len(batches.dataset)


def epoch(args):
    """Train the whole network on augmented photos; the first pass starts the workers, as an epoch of a script does."""
    augmented = [v2.RandomResizedCrop(224, (0.5, 1)), v2.RandomHorizontalFlip(), v2.RandomRotation(10)]
    augmented += [v2.ColorJitter(0.2, 0.2), *normalised(MEAN, STD)]
    batches = loader(args.data / "train", augmented, LITE_BS, training=True)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, len(batches.dataset.classes)))
    model = nn.Sequential(lite0_body(args.weights), head)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    trained_s = []
    for _ in range(args.epochs):
        start = perf_counter()
        train(model, batches, optimizer)
        trained_s.append(perf_counter() - start)
    report(trained_s=trained_s)


def cifar(args):
    """Train the small network from scratch."""
    augmented = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip(), *normalised(*CIFAR)]
    batches = loader(args.data / "train", augmented, CIFAR_BS, training=True)
    valid = loader(args.data / "valid", normalised(*CIFAR), CIFAR_BS, training=False)
    model = cifar_network()
    optimizer = torch.optim.AdamW(model.parameters(), CIFAR_LR, betas=(0.9, 0.99), eps=1e-5, fused=True)
    n_steps = args.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, CIFAR_LR, n_steps, pct_start=0.25)
    epoch_s = []
    for _ in range(args.epochs):
        start = perf_counter()
        train(model, batches, optimizer, schedule)
        accuracy = validate(model, valid)
        epoch_s.append(perf_counter() - start)
    report(epoch_s=epoch_s, accuracy=accuracy)


def decode(args):
    """Decode large photos to 256 pixels, one after the other, as ImageFolder does."""
    pipeline = v2.Compose([v2.Resize(256), v2.CenterCrop(256), v2.PILToTensor()])
    folder = ImageFolder(str(args.data), transform=pipeline)
    start = perf_counter()
    n = sum(1 for i in range(len(folder)) if folder[i][0].shape == (3, 256, 256))
    report(per_image_s=(perf_counter() - start) / n)


if __name__ == "__main__":
    args = arguments("epoch", "cifar", "decode")
    {"epoch": epoch, "cifar": cifar, "decode": decode}[args.task](args)
