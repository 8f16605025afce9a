"""Everything that shows takes matplotlib's usual options, or says which it takes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid import convolution as cv
from pellucid.data.factories import ImageDataLoaders
from pellucid.data.images import Resize
from pellucid.errors import UsageError
from pellucid.experiments.results import Cell, Results
from pellucid.metrics import accuracy
from pellucid.nn.models import small_resnet
from pellucid.plot.images import show_image, show_images
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner

ONE_PANEL = {
    *("color_dim", "dead_chart", "plot_hist", "show_kernels", "History.plot_loss", "Recorder.plot_loss"),
    *("plot_confusion_matrix", "show_image"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Name → function of options that draws; all of a real run on real files whose names hold dollar signs."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("a$b$c", "_under"):
        (folder / name).mkdir()
        for n in range(10):
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / name / f"{n}.png")
    dls = ImageDataLoaders.from_folder(folder, valid_pct=0.3, seed=1, item_tfms=Resize(32), bs=4, cache=False)
    torch.manual_seed(0)
    model = small_resnet(3, 2)
    learn = Learner(dls, model, F.cross_entropy, metrics=accuracy)
    with pellucid.watch(model, optimizer="auto", loss=True, with_hist=True) as seen:
        learn.fit(2, 0.01)
    interp = ClassificationInterpretation.from_learner(learn)
    image = torch.rand(1, 12, 12)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3))
    field = cv.receptive_field(net, (1, 12, 12))
    cells = tuple(Cell(variant, seed, {"accuracy": 0.5 + seed / 10}) for variant in ("$a", "$b") for seed in (0, 1))
    results = Results("name", "is a$question$ drawn?", cells, "$a", {"epochs": 1})
    return {
        "plot_layer_stats": lambda **o: seen.plot_layer_stats(0, **o),
        "color_dim": lambda **o: seen.color_dim(0, **o),
        "sheet": seen.plot,
        "dead_chart": seen.dead_chart,
        "plot_gradients": seen.plot_gradients,
        "plot_hist": lambda **o: seen.plot_hist(0, **o),
        "show_kernels": seen.show_kernels,
        "History.plot_loss": seen.history.plot_loss,
        "Recorder.plot_loss": learn.recorder.plot_loss,
        "plot_sched": learn.recorder.plot_sched,
        "show_batch": dls.show_batch,
        "show_results": learn.show_results,
        "plot_top_losses": lambda **o: interp.plot_top_losses(4, **o),
        "plot_confusion_matrix": interp.plot_confusion_matrix,
        "show_image": lambda **o: show_image(image, **o).figure,
        "show_images": lambda **o: show_images([image, image], **o)[0, 0].figure,
        "field": lambda **o: field.show("2", **o),
        "fields": field.show,
        "trace": cv.trace(net, image[None], 1, (2, 2)).show,
        "matrix": cv.as_matrix(nn.Conv2d(1, 1, 2), input_size=(3, 3)).show,
        "large matrix": cv.as_matrix(nn.Conv2d(1, 2, 3), input_size=(30, 30)).show,
        "application": lambda **o: cv.show_application(image[0], cv.kernels.top_edge, 4, 4, **o),
        "positions": lambda **o: cv.show_positions(5, 3, **o),
        "channels": lambda **o: cv.show_channels(torch.rand(3, 5, 5), **o),
        "gallery": lambda **o: cv.show_gallery(image[0], **o),
        "products": cv.channel_products(torch.rand(3, 5, 5), torch.rand(3, 3, 3), 2, 2).show,
        "experiment": results.plot,
    }


NAMES = [
    *("plot_layer_stats", "color_dim", "sheet", "dead_chart", "plot_gradients", "plot_hist", "show_kernels"),
    *("History.plot_loss", "Recorder.plot_loss", "plot_sched", "show_batch", "show_results", "plot_top_losses"),
    *("plot_confusion_matrix", "show_image", "show_images", "field", "fields", "trace", "matrix", "large matrix"),
    *("application", "positions", "channels", "gallery", "products", "experiment"),
]


def test_all_are_listed(pictures):
    assert set(NAMES) == set(pictures)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "show_image"])
def test_size_and_titles(pictures, name):
    figure = pictures[name](figsize=(9, 30), dpi=50, suptitle="above all")
    assert tuple(figure.get_size_inches()) == (9, 30) and figure.dpi == 50
    assert figure.get_suptitle() == "above all"
    figure.canvas.draw()  # names with dollar signs are drawn as they are


@pytest.mark.parametrize("name", [name for name in NAMES if name != "show_images"])
def test_a_title_of_ones_own(pictures, name):
    figure = pictures[name](title="mine")
    shown = [figure.get_suptitle(), *(ax.get_title() for ax in figure.axes)]
    assert shown.count("mine") == 1
    if name in ONE_PANEL:
        assert figure.axes[0].get_title() == "mine"


@pytest.mark.parametrize("name", sorted(ONE_PANEL))
@pytest.mark.parametrize("option", ["ax", "ctx"])
def test_axes_that_are_there(pictures, name, option):
    figure, (left, right) = plt.subplots(1, 2)
    assert pictures[name](**{option: right}) is figure
    assert right.has_data() and not left.has_data()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("show_image", "show_images")])
@pytest.mark.parametrize("option", ["figsze", "ax", "nrows"])
def test_an_option_that_is_not_taken_is_named(pictures, name, option):
    grid = name in ("show_batch", "show_results", "plot_top_losses")
    if (option == "ax" and name in ONE_PANEL) or (option == "nrows" and grid):
        pytest.skip("taken")
    before = plt.get_fignums()
    with pytest.raises((UsageError, TypeError), match=option) as caught:
        pictures[name](**{option: 1})
    assert isinstance(caught.value, UsageError)
    assert ("options of matplotlib's imshow" if grid else "it takes figsize, dpi, title, suptitle") in str(caught.value)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("name", ["show_batch", "show_results", "plot_top_losses", "show_images"])
def test_rows_and_columns_of_grids(pictures, name):
    rows = {"nrows": 1} if name == "show_images" else {"nrows": 2}
    for options, expected in ((rows, rows["nrows"]), ({"ncols": 1, "nrows": None}, None)):
        figure = pictures[name](**options)
        shape = figure.axes[0].get_subplotspec().get_gridspec()
        assert shape.nrows == expected if expected else shape.ncols == 1
    if name == "show_batch":  # as many as there is room for, as fastai has it
        assert len(pictures[name](nrows=1, ncols=2).axes) == 2
    else:
        with pytest.raises(UsageError, match="1×1"):
            pictures[name](nrows=1, ncols=1)


@pytest.mark.parametrize("name", ["show_image", "show_images"])
def test_options_of_imshow(pictures, name):
    assert pictures[name](cmap="magma", dpi=40, figsize=(2, 3)).axes[0].images[0].get_cmap().name == "magma"
    with pytest.raises(UsageError, match="takes ax, ctx, figsize, dpi, title and the options of matplotlib's imshow"):
        pictures[name](figsze=3)


def test_size_and_axes_contradict(pictures):
    _, ax = plt.subplots()
    with pytest.raises(UsageError, match="figsize is for a new figure"):
        pictures["color_dim"](ax=ax, figsize=(3, 3))


def test_names_are_drawn_as_they_are(pictures):
    figure = pictures["plot_confusion_matrix"]()
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["_under", r"a\$b\$c"]  # an escaped dollar sign is drawn as one
