"""What the figures of kernels draw, read back from matplotlib."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from torch.nn import functional as F

from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.plot.kernels import LIT, WINDOW


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def cells(ax, colour: str) -> int:
    return sum(to_hex(patch.get_facecolor()) == colour for patch in ax.patches)


def test_the_chapters_figure_shows_the_window_the_products_and_their_sum():
    image = torch.arange(1, 50).reshape(7, 7)
    figure = cv.show_application(image, cv.kernels.top_edge, 2, 3)
    texts = words(figure)
    assert f"sum  {24 + 25 + 26 - 10 - 11 - 12}" in texts
    assert {"−10", "−11", "−12", "24", "25", "26"} <= set(texts)
    assert texts.count("42") == 25 + 1  # the whole map, and one pixel of the image
    frame = figure.axes[0].patches[0]
    assert (frame.get_xy(), frame.get_width(), frame.get_height()) == ((1.5, 0.5), 3, 3)


def test_large_images_have_no_numbers_in_them():
    figure = cv.show_application(torch.zeros(28, 28), cv.kernels.top_edge, 5, 7)
    assert len(words(figure)) == 3 * 9 + 3


@settings(max_examples=8)
@given(st.integers(3, 6), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2))
def test_positions_cover_what_the_kernel_reads(size, kernel, stride, padding, dilation):
    if dilation * (kernel - 1) + 1 > size + 2 * padding:
        return
    inside = F.unfold(torch.ones(1, 1, size, size), kernel, dilation, padding, stride)[0].sum(0)
    n = int(len(inside) ** 0.5)
    places = [(0, 0), (n // 2, n - 1), (n - 1, n - 1)]
    figure = cv.show_positions(size, kernel, stride, padding, dilation, positions=places)
    for ax, (row, col) in zip(figure.axes, places, strict=False):
        assert cells(ax, WINDOW) == inside[row * n + col]
        assert cells(ax, LIT) == 1
        assert len(ax.patches) == (size + 2 * padding) ** 2 + n**2


def test_titles_say_what_is_drawn():
    figure = cv.show_positions(5, 4, padding=2, positions=[(0, 0)])
    assert figure.get_suptitle() == "4×4 kernel on 5×5, padding 2 → 6×6"
    figure = cv.show_positions((5, 6), 4, padding="same")
    assert figure.get_suptitle() == "4×4 kernel on 5×6, padding 1 above, 2 below, 1 left, 2 right → 5×6"
    assert len([ax for ax in figure.axes if ax.patches]) == 6
    assert cv.show_positions(5, 3, 2, 1).get_suptitle() == "3×3 kernel on 5×5, padding 1, stride 2 → 3×3"


def test_channel_figures():
    image = torch.arange(3 * 5 * 5).reshape(3, 5, 5)
    steps = cv.channel_products(image, cv.kernels.sobel_x, 2, 2, bias=1)
    assert [text for text in words(steps.show()) if text.startswith("sum")] == ["sum  8"] * 3
    figure = cv.show_channels(image)
    assert [ax.get_title() for ax in figure.axes] == ["image", "red, mean 12", "green, mean 37", "blue, mean 62"]
    red = figure.axes[1].images[0].get_array()
    assert red[..., 1:].max() == 0 and red[..., 0].max() == pytest.approx(24 / 255)


def test_the_gallery_has_every_kernel():
    figure = cv.show_gallery(torch.rand(12, 12))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == list(cv.kernels.named())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cv.show_positions(5, 3, positions=[(3, 0)]), "no position (3, 0): rows go from 0 to 2"),
        (lambda: cv.show_positions(2, 3), "does not fit into 2"),
        (lambda: cv.show_application(torch.ones(3, 5, 5), cv.kernels.box(3), 2, 2), "takes an image (row, column)"),
        (lambda: cv.show_channels(torch.ones(5, 5)), "does not have the 3 channels"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(UsageError) as caught:
        call()
    assert message in str(caught.value)
