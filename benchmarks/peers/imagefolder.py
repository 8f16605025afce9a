"""The tutorial's way: torchvision ImageFolder, DataLoader with two workers, and a loop by hand."""

from time import perf_counter

import torch
import torch.nn.functional as F
from common import arguments, report
from folders import loaders
from network import adam, n_correct, one_cycle, set_hypers, simple_cnn
from torch import nn
from torch.utils.data import DataLoader


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: DataLoader, hypers: list[tuple[float, float]]
) -> None:
    """Train on one pass."""
    model.train()
    for (xb, yb), (lr, mom) in zip(batches, hypers, strict=True):
        loss = F.cross_entropy(model(xb), yb)
        loss.backward()
        set_hypers(optimizer, lr, mom)
        optimizer.step()
        optimizer.zero_grad()


@torch.inference_mode()
def validate(model: nn.Module, batches: DataLoader) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    model.eval()
    loss, correct, n = torch.zeros(()), torch.zeros((), dtype=torch.long), len(batches.dataset)
    for xb, yb in batches:
        logits = model(xb)
        loss += F.cross_entropy(logits, yb, reduction="sum")
        correct += n_correct(logits, yb)
    return loss.item() / n, correct.item() / n


def main() -> None:
    """Train, validate, report."""
    args = arguments()
    torch.set_num_threads(args.threads)
    begin = perf_counter()
    training, valid = loaders(args)
    model = simple_cnn()
    optimizer = adam(model)
    n_steps = len(training)
    hypers = one_cycle(args.epochs * n_steps)
    epoch_s, ends = [], []
    for epoch in range(args.epochs):
        start = perf_counter()
        train(model, optimizer, training, hypers[epoch * n_steps : (epoch + 1) * n_steps])
        valid_loss, accuracy = validate(model, valid)
        ends.append(perf_counter())
        epoch_s.append(ends[-1] - start)
        print(f"{epoch} {valid_loss:.6f} {accuracy:.6f}")
    report(epoch_s, ends[0] - begin, accuracy, len(training.dataset), len(valid.dataset))


if __name__ == "__main__":
    main()
