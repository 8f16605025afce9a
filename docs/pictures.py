"""Renew the pictures of README and docs from a real run: `make pictures`."""

from pathlib import Path

import arrows
import matplotlib
import stories
import torch
from torch.nn import functional as F

from pellucid.data.catalogue import URLs, untar_data
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import PILImageBW
from pellucid.data.transforms import Normalize
from pellucid.training.learner import Learner
from pellucid.metrics import accuracy
from pellucid.nn.models import simple_cnn
from pellucid.plot.images import show_image
from pellucid.plot.training import plot_loss, plot_sched
from pellucid.seed import set_seed

matplotlib.use("Agg")
IMAGES = Path(__file__).parent / "images"
DPI = 130


def train() -> Learner:
    """The chapter's final recipe."""
    set_seed(42)
    dls = ImageDataLoaders.from_folder(
        untar_data(URLs.MNIST), img_cls=PILImageBW, batch_tfms=Normalize(), bs=512, seed=42
    )
    learn = Learner(dls, simple_cnn(), F.cross_entropy, metrics=accuracy)
    learn.fit_one_cycle(5, 0.1)
    return learn


def overview(learn: Learner):
    """README's picture: what the network was shown and where it errs, its loss, its schedule."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 3.9), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=(1, 1.15, 1.15))
    probabilities, labels = learn.get_preds()
    assert labels is not None
    guesses = probabilities.argmax(1)
    wrong = (guesses != labels).nonzero().flatten()[30:32].tolist()
    shown = [*range(0, 10_000, 1450), *wrong]
    xb = torch.cat([xb for xb, _ in learn.dls.valid])
    for ax, i in zip(left.subplots(3, 3).flat, shown, strict=True):
        show_image(learn.dls.valid.decode(xb[i : i + 1])[0], ax=ax, cmap="Greys")
        colour = "black" if labels[i] == guesses[i] else "crimson"
        ax.set_title(f"{labels[i]} → {guesses[i]}", fontsize=10, color=colour)
    left.suptitle("validation images: label → prediction", fontsize=11)
    recorder = learn.recorder
    plot_loss(recorder.losses, [row[1] for row in recorder.values], recorder.iters, ax=middle.subplots())
    middle.suptitle(f"loss; accuracy {recorder.values[-1][-1]:.4f} after 5 epochs", fontsize=11)
    panels = right.subplots(2, 1, sharex=True)
    plot_sched({name: [v[-1] for v in recorder.hypers[name]] for name in ("lr", "mom")}, panels)
    panels[0].set_xlabel("")
    right.suptitle("1cycle: learning rate up, momentum down", fontsize=11)
    return figure


def main() -> None:
    """Train once and save every picture."""
    IMAGES.mkdir(exist_ok=True)
    learn = train()
    figures = {
        "overview": overview(learn),
        "show_batch": learn.dls.show_batch(max_n=9, figsize=(4, 4)),
        "show_results": learn.show_results(max_n=9),
        "plot_loss": learn.recorder.plot_loss(),
        "plot_sched": learn.recorder.plot_sched(),
    }
    for name, figure in figures.items():
        figure.savefig(IMAGES / f"{name}.png", dpi=DPI)
        print(IMAGES / f"{name}.png")
    stories.main(IMAGES)
    arrows.main(IMAGES)


if __name__ == "__main__":
    main()
