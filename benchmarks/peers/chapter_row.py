"""Train one row of the chapter's result tables with one library and print its accuracy, as JSON in the last line.

Both libraries run the same lines: only the module that the names come from differs.

    python chapter_row.py fastai --row 3 --seed 0 --sample MNIST_SAMPLE_FOLDER --digits MNIST_FOLDER
"""

import argparse
import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """What is trained, and the accuracy the chapter prints for it."""

    name: str
    chapter: float
    bs: int
    epochs: int
    lr: float
    sample: bool = False  # 3s and 7s only
    one_cycle: bool = True
    batchnorm: bool = False


ROWS = (
    Row("3s and 7s, 2 epochs, 1cycle 0.01", 0.9902, 64, 2, 0.01, sample=True),
    Row("plain net, 1 epoch at 0.06, bs 64", 0.1135, 64, 1, 0.06, one_cycle=False),
    Row("plain net, 1 epoch at 0.06, bs 512", 0.1135, 512, 1, 0.06, one_cycle=False),
    Row("the same, 1cycle", 0.9743, 512, 1, 0.06),
    Row("the same with batchnorm", 0.9864, 512, 1, 0.06, batchnorm=True),
    Row("the same, 5 epochs, 1cycle 0.1", 0.9912, 512, 5, 0.1, batchnorm=True),
)


def network(library: Any, row: Row) -> Any:
    """The chapter's network of this row."""
    nn = library.nn

    def conv(ni: int, nf: int, ks: int = 3, act: bool = True) -> Any:
        layers = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks // 2)]
        if act:
            layers.append(nn.ReLU())
        if row.batchnorm:
            layers.append(nn.BatchNorm2d(nf))
        return nn.Sequential(*layers)

    if row.sample:
        convs = conv(1, 4), conv(4, 8), conv(8, 16), conv(16, 32), conv(32, 2, act=False)
    else:
        convs = conv(1, 8, ks=5), conv(8, 16), conv(16, 32), conv(32, 64), conv(64, 10, act=False)
    return library.sequential(*convs, library.Flatten())


def loaders(library: Any, row: Row, path: Path) -> Any:
    """The chapter's batches of this row."""
    v = library
    splitter = v.GrandparentSplitter() if row.sample else v.GrandparentSplitter("training", "testing")
    block = v.DataBlock(
        blocks=(v.ImageBlock(cls=v.PILImageBW), v.CategoryBlock),
        get_items=v.get_image_files,
        splitter=splitter,
        get_y=v.parent_label,
        batch_tfms=None if row.sample else v.Normalize(),
    )
    return block.dataloaders(path, bs=row.bs)


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=("pellucid", "fastai"))
    parser.add_argument("--row", type=int, required=True, help="index into ROWS")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--sample", type=Path, required=True, help="folder of MNIST_SAMPLE")
    parser.add_argument("--digits", type=Path, required=True, help="folder of MNIST")
    args = parser.parse_args()
    if args.library == "fastai":
        import torchvision_import  # noqa: F401  (must come before fastai)
    library, row = import_module(f"{args.library}.vision.all"), ROWS[args.row]
    dls = loaders(library, row, args.sample if row.sample else args.digits)
    library.set_seed(args.seed)
    model = network(library, row)
    learn = library.Learner(dls, model, loss_func=library.F.cross_entropy, metrics=library.accuracy)
    learn.remove_cb(library.ProgressCallback)
    (learn.fit_one_cycle if row.one_cycle else learn.fit)(row.epochs, row.lr)
    print("\n" + json.dumps({"accuracy": learn.recorder.values[-1][-1]}))


if __name__ == "__main__":
    main()
