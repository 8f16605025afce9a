"""The floor: a loop written by hand for this one task, on images decoded and normalised before the clock starts."""

from time import perf_counter

import torch
import torch.nn.functional as F
from common import arguments, report
from network import adam, n_correct, one_cycle, set_hypers, simple_cnn
from tensors import Split, load
from torch import nn


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Split, bs: int, hypers: list[tuple[float, float]]
) -> float:
    """Train on one shuffled pass without the last incomplete batch; returns the mean loss."""
    x, y = data
    model.train()
    order = torch.randperm(len(x))
    total = torch.zeros(())
    for step, (lr, mom) in enumerate(hypers):
        rows = order[step * bs : (step + 1) * bs]
        # index_select copies rows twice as fast as x[rows]
        loss = F.cross_entropy(model(x.index_select(0, rows)), y.index_select(0, rows))
        loss.backward()
        set_hypers(optimizer, lr, mom)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.detach()
    return total.item() / len(hypers)


@torch.inference_mode()
def validate(model: nn.Module, data: Split, bs: int) -> tuple[float, float]:
    """Return mean loss and accuracy; both stay tensors until the last batch."""
    x, y = data
    model.eval()
    loss, correct = torch.zeros(()), torch.zeros((), dtype=torch.long)
    for xb, yb in zip(x.split(bs), y.split(bs), strict=True):
        logits = model(xb)
        loss += F.cross_entropy(logits, yb, reduction="sum")
        correct += n_correct(logits, yb)
    return loss.item() / len(x), correct.item() / len(x)


def main() -> None:
    """Train, validate, report."""
    args = arguments()
    torch.set_num_threads(args.threads)
    begin = perf_counter()
    training, valid = load(args)
    model = simple_cnn().to(memory_format=torch.channels_last if args.channels_last else torch.contiguous_format)
    optimizer = adam(model, args.fused)
    n_steps = len(training[0]) // args.bs
    hypers = one_cycle(args.epochs * n_steps)
    epoch_s, ends = [], []
    for epoch in range(args.epochs):
        start = perf_counter()
        train_loss = train(model, optimizer, training, args.bs, hypers[epoch * n_steps : (epoch + 1) * n_steps])
        valid_loss, accuracy = validate(model, valid, args.bs)
        ends.append(perf_counter())
        epoch_s.append(ends[-1] - start)
        print(f"{epoch} {train_loss:.6f} {valid_loss:.6f} {accuracy:.6f}")
    report(epoch_s, ends[0] - begin, accuracy, len(training[0]), len(valid[0]))


if __name__ == "__main__":
    main()
