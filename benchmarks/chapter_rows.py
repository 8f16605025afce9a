"""Train the rows of the chapter's result tables over several seeds; write results/chapter.md and results/chapter.json.

python benchmarks/chapter_rows.py --seeds 5
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from environments import HERE, machine
from torch import nn

from pellucid.data.loader import DataLoaders
from pellucid.models import conv, plain_cnn, simple_cnn
from pellucid.vision.all import (
    CategoryBlock,
    DataBlock,
    F,
    Flatten,
    GrandparentSplitter,
    ImageBlock,
    Learner,
    Normalize,
    PILImageBW,
    ProgressCallback,
    URLs,
    accuracy,
    get_image_files,
    parent_label,
    sequential,
    set_seed,
    untar_data,
)


@dataclass(frozen=True)
class Result:
    """One row of the chapter: what it trains, the accuracy it prints, and how to train it."""

    name: str
    chapter: float
    data: Callable[[], DataLoaders]
    model: Callable[[], nn.Module]
    fit: Callable[[Learner], None]


def one_cycle(epochs: int, lr: float) -> Callable[[Learner], None]:
    return lambda learn: learn.fit_one_cycle(epochs, lr)


def constant(epochs: int, lr: float) -> Callable[[Learner], None]:
    return lambda learn: learn.fit(epochs, lr)


def threes_and_sevens() -> DataLoaders:
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_image_files, GrandparentSplitter(), parent_label)
    return block.dataloaders(untar_data(URLs.MNIST_SAMPLE))


def ten_digits(bs: int) -> DataLoaders:
    splitter = GrandparentSplitter("training", "testing")
    blocks = ImageBlock(PILImageBW), CategoryBlock
    block = DataBlock(blocks, get_image_files, splitter, parent_label, batch_tfms=Normalize())
    return block.dataloaders(untar_data(URLs.MNIST), bs=bs)


def first_cnn() -> nn.Module:
    return sequential(conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 32), conv(32, 2, act=False), Flatten())


RESULTS = [
    Result("3s and 7s, 2 epochs, 1cycle 0.01", 0.9902, threes_and_sevens, first_cnn, one_cycle(2, 0.01)),
    Result("plain net, 1 epoch at 0.06, bs 64", 0.1135, lambda: ten_digits(64), plain_cnn, constant(1, 0.06)),
    Result("plain net, 1 epoch at 0.06, bs 512", 0.1135, lambda: ten_digits(512), plain_cnn, constant(1, 0.06)),
    Result("the same, 1cycle", 0.9743, lambda: ten_digits(512), plain_cnn, one_cycle(1, 0.06)),
    Result("the same with batchnorm", 0.9864, lambda: ten_digits(512), simple_cnn, one_cycle(1, 0.06)),
    Result("the same, 5 epochs, 1cycle 0.1", 0.9912, lambda: ten_digits(512), simple_cnn, one_cycle(5, 0.1)),
]


def accuracies(result: Result, seeds: int) -> list[float]:
    """Validation accuracy at the end of training, one a seed."""
    dls, values = result.data(), []
    for seed in range(seeds):
        set_seed(seed)
        learn = Learner(dls, result.model(), F.cross_entropy, metrics=accuracy)
        learn.remove_cb(ProgressCallback)
        result.fit(learn)
        values.append(learn.recorder.values[-1][-1])
    return values


def row(result: Result, values: list[float]) -> str:
    """A line of the Markdown table."""
    spread = stdev(values) if len(values) > 1 else 0.0
    each = " ".join(f"{value:.4f}" for value in values)
    return f"| {result.name} | {result.chapter:.4f} | {mean(values):.4f} ± {spread:.4f} | {each} |"


def main() -> None:
    """Train all rows and write them down."""
    parser = argparse.ArgumentParser(description="Train the chapter's rows over several seeds.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    lines = ["| training | chapter | mean ± standard deviation | each seed |", "|---|---|---|---|"]
    print("\n".join(lines))
    measured = {}
    for result in RESULTS:
        measured[result.name] = accuracies(result, args.seeds)
        lines.append(row(result, measured[result.name]))
        print(lines[-1], flush=True)
    facts = machine()
    head = [
        "# The chapter's results",
        "",
        "Validation accuracy of the chapter's recipes, over seeds; the chapter prints one run of each. The plain net",
        "at 0.06 without 1cycle is meant to fail: whether it collapses depends on the seed. Written by",
        "`python benchmarks/chapter_rows.py`.",
        "",
        *(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()),
        "",
    ]
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / "chapter.md").write_text("\n".join(head + lines) + "\n")
    (args.results / "chapter.json").write_text(json.dumps({"machine": facts, "accuracy": measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
