"""What watching costs: the same training steps unwatched, watched, and with hooks as people write them by hand.

Blocks of steps alternate within one process, on random images that lie in memory. Prints seconds per step, a list per
way of watching, one entry a round.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from statistics import median
from time import perf_counter

if "--without-numba" in sys.argv:
    sys.modules["numba"] = None  # type: ignore[assignment]  # what `import numba` then finds: nothing

import torch
import torch.nn.functional as F
from network import adam, simple_cnn
from torch import Tensor, nn

import pellucid


class Residual(nn.Module):
    """Two 3×3 convolutions with batch normalization beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.norm2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.shortcut = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


def resnet18() -> nn.Sequential:
    """The 18-layer network of He et al., "Deep Residual Learning for Image Recognition", 2016, for ten classes."""
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    blocks = [Residual(n_in, n_out, 1 if n_in == n_out else 2) for n_in, n_out in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


@contextmanager
def usual_hooks(model: nn.Module) -> Iterator[None]:
    """Mean, standard deviation, share near zero and histogram of each layer, a few torch calls each."""
    seen = []

    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        x = output.detach()
        near_zero = (x <= 0.05).long().sum().item() / x.numel()
        seen.append((x.mean().item(), x.std().item(), near_zero, x.histc(40, 0, 10)))

    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    yield
    for handle in handles:
        handle.remove()


def main() -> None:
    """Time the blocks, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=("chapter", "resnet"), default="chapter")
    parser.add_argument("--bs", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60, help="per block")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--ways", nargs="+", help="those to time beside `unwatched`; default all")
    parser.add_argument("--without-numba", action="store_true", help="read layers by torch's own reductions")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(0)
    chapter = args.model == "chapter"
    model = simple_cnn() if chapter else resnet18()
    xb = torch.randn(args.bs, *((1, 28, 28) if chapter else (3, 128, 128)))
    yb = torch.randint(10, (args.bs,))
    optimizer = adam(model)

    def steps(n: int) -> float:
        times = []
        for _ in range(n):
            start = perf_counter()
            F.cross_entropy(model(xb), yb).backward()
            optimizer.step()
            optimizer.zero_grad()
            times.append(perf_counter() - start)
        return median(times)

    def watched(**options: bool) -> Callable[[], AbstractContextManager]:
        return lambda: pellucid.watch(model, optimizer, **{"with_grads": False} | options)

    ways: dict[str, Callable[[], AbstractContextManager]] = {
        "unwatched": nullcontext,
        "histogram": watched(),
        "no histogram": watched(with_hist=False),
        "histogram and gradients": watched(with_grads=True, loss=True),
        "doctor": watched(with_grads=True, doctor=True),
        "usual hooks": lambda: usual_hooks(model),
    }
    if args.ways:
        ways = {way: context for way, context in ways.items() if way in ("unwatched", *args.ways)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(args.rounds + 1):
        for way, context in ways.items():
            with context():
                steps(3)
                each = steps(args.steps)
            if round_:  # the first one warms up
                seconds[way].append(each)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
