"""The chapter's story in one picture, from three real runs: one collapses, one recovers, one is smooth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.nn import functional as F

from pellucid.history.history import History
from pellucid.training.callbacks.statistics import ActivationStats
from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.data.transforms import Normalize
from pellucid.training.learner import Learner
from pellucid.metrics import accuracy
from pellucid.nn.models import plain_cnn, simple_cnn
from pellucid.plot.activations import color_dim
from pellucid.seed import set_seed

LAYER = "3.0"  # the last convolution but one
SEED = 1
STORIES = (
    ("Constant learning rate 0.06", "one burst, then dead"),
    ("1cycle up to 0.06", "bursts, collapses, recovers"),
    ("1cycle up to 0.06, batchnorm", "smooth from the start"),
)


def train() -> tuple[list[History], list[float]]:
    """Train the three on MNIST for an epoch of 512-image batches; returns what was seen, and the accuracies."""
    histories, accuracies = [], []
    for model, one_cycle in ((plain_cnn, False), (plain_cnn, True), (simple_cnn, True)):
        set_seed(SEED)
        dls = ImageDataLoaders.from_folder(
            untar_data(URLs.MNIST), img_cls=PILImageBW, batch_tfms=Normalize(), bs=512, seed=SEED
        )
        learn = Learner(dls, model(), F.cross_entropy, metrics=accuracy, cbs=ActivationStats(with_hist=True))
        (learn.fit_one_cycle if one_cycle else learn.fit)(1, 0.06)
        histories.append(learn.activation_stats.history)
        accuracies.append(learn.recorder.values[-1][-1])
    return histories, accuracies


def draw(histories: Sequence[History], accuracies: Sequence[float]) -> Any:
    """The three side by side: histogram, mean and deviation, share near zero of the same layer."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(
        3, 3, figsize=(13, 7.2), sharex=True, sharey="row", height_ratios=(1.5, 1, 1), layout="constrained"
    )
    for column, history, accuracy_, (title, line) in zip(grid.T, histories, accuracies, STORIES, strict=True):
        x, row = history.train, history.index(LAYER)
        steps = x.steps[:, 0] + 0.5
        assert x.hist is not None
        color_dim(x.steps, x.hist[row][:, 40:], (0.0, 10.0), ax=column[0], scale=False)
        column[0].set_title(f"{title}\n{line}: accuracy {100 * accuracy_:.1f} %", fontsize=11, loc="left")
        column[1].plot(steps, x.mean[row], color="black", linewidth=1.5, label="mean")
        column[1].plot(steps, x.std[row], color="tab:orange", linewidth=1.5, linestyle="--", label="standard deviation")
        column[1].set_ylim(-5.5, 5.5)
        column[2].plot(steps, 100 * x.share("near_zero")[row], color="black", linewidth=1.5)
        column[2].set_ylim(-3, 103)
        column[0].set_xlabel("")
        for ax in column[1:]:
            ax.grid(alpha=0.25)
        column[2].set_xlabel("batch")
    for ax, label in zip(grid[:, 0], ("activation\n(colour: log of count)", "activation", "near zero, %"), strict=True):
        ax.set_ylabel(label)
    for ax in grid[0, 1:]:
        ax.set_ylabel("")
    grid[1, 0].legend(frameon=False, loc="lower right", fontsize="small")
    return figure


def main(folder: Path) -> None:
    """Train and save the picture."""
    draw(*train()).savefig(folder / "three_stories.png", dpi=130)
