"""Kernels applied to images, against PyTorch's convolutions and against loops in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from pellucid import convolution as cv
from pellucid.convolution.kernels import named
from pellucid.errors import UsageError
from pellucid.vision.core import image2tensor, image_bear, tensor

top_edge = cv.kernels.top_edge


@pytest.fixture(scope="module")
def three(mnist_sample):
    return tensor(Image.open(mnist_sample / "train" / "3" / "12.png"))


@pytest.fixture(scope="module")
def photo():
    return image2tensor(Image.open(image_bear()))


def test_the_chapters_numbers(three):
    assert repr(cv.apply_kernel(three, 5, 7, top_edge)) == "tensor(762.)"
    assert cv.apply_kernel(three, 8, 18, top_edge) == -29
    assert cv.apply_kernel(three, 1, 1, top_edge) == 0


def test_the_chapters_edge_map(three):
    by_hand = torch.tensor([[cv.apply_kernel(three, i, j, top_edge) for j in range(1, 27)] for i in range(1, 27)])
    edges = cv.feature_map(three, top_edge)
    assert edges.shape == (26, 26)
    assert torch.equal(edges, by_hand)
    assert torch.equal(edges, F.conv2d(three.float()[None, None], top_edge[None, None])[0, 0])


def test_four_kernels_over_a_batch_as_in_the_chapter():
    xb = torch.rand(64, 1, 28, 28, generator=torch.manual_seed(0))
    edges = torch.stack([cv.kernels.left_edge, top_edge, cv.kernels.diag1_edge, cv.kernels.diag2_edge])
    expected = F.conv2d(xb, edges.unsqueeze(1))
    assert expected.shape == (64, 4, 26, 26)
    assert torch.equal(cv.feature_map(xb, edges), expected)
    assert torch.equal(cv.feature_map(xb, edges.unsqueeze(1)), expected)
    assert torch.equal(cv.feature_map(xb[0], edges), expected[0])
    assert torch.equal(cv.feature_map(xb[0, 0], edges), expected[0])
    assert torch.equal(cv.feature_map(xb, top_edge), expected[:, 1:2])


@settings(max_examples=80)
@given(st.data())
def test_feature_maps_are_conv2d(data):
    n, c, k = (data.draw(st.integers(1, 3)) for _ in range(3))
    size = data.draw(st.tuples(st.integers(8, 12), st.integers(8, 12)))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride, padding, dilation = (data.draw(st.integers(low, 2)) for low in (1, 0, 1))
    generator = torch.manual_seed(data.draw(st.integers(0, 99)))
    x, w, b = (torch.randn(*shape, generator=generator) for shape in ((n, c, *size), (k, c, *kernel), (k,)))
    expected = F.conv2d(x, w, b, stride, padding, dilation)
    options = {"bias": b, "stride": stride, "padding": padding, "dilation": dilation}
    assert torch.equal(cv.feature_map(x, w, **options), expected)
    assert torch.allclose(cv.feature_map(x[0], w, **options), expected[0], atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_keeps_the_size_and_the_place(size):
    image = torch.randn(9, 11, generator=torch.manual_seed(size))
    kernel = torch.randn(size, size, generator=torch.manual_seed(0))
    kept = cv.feature_map(image, kernel, padding="same")
    assert torch.allclose(kept, F.conv2d(image[None, None], kernel[None, None], padding="same")[0, 0], atol=1e-5)
    low, high = (size - 1) // 2, size // 2
    for row in range(low, 9 - high):
        for col in range(low, 11 - high):
            assert cv.apply_kernel(image, row, col, kernel) == pytest.approx(kept[row, col].item(), abs=1e-5)


def test_gradients_reach_the_kernel():
    kernel = torch.ones(3, 3, requires_grad=True)
    cv.feature_map(torch.ones(5, 5), kernel).sum().backward()
    assert kernel.grad is not None and torch.equal(kernel.grad, torch.full((3, 3), 9.0))


def test_arrays_lists_and_doubles_are_taken():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5)
    assert cv.apply_kernel(image, 2, 2, [[0, 0, 0], [0, 1, 0], [0, 0, 0]]) == 12
    assert cv.feature_map(image.astype(np.float64), top_edge).dtype == torch.float64
    assert (
        cv.apply_kernel(torch.full((3, 3), 200, dtype=torch.uint8), 1, 1, torch.full((3, 3), 2, dtype=torch.uint8))
        == 3600
    )


def test_colour_is_the_sum_over_channels(photo):
    kernel = torch.randn(3, 3, 3, generator=torch.manual_seed(0))
    mapped = cv.feature_map(photo, kernel)
    assert mapped.shape == (photo.shape[1] - 2, photo.shape[2] - 2)
    by_channel = sum(cv.feature_map(channel, part) for channel, part in zip(photo, kernel, strict=True))
    assert torch.allclose(mapped, by_channel, atol=1e-2)  # pyright: ignore[reportArgumentType]
    steps = cv.channel_products(photo, kernel, 200, 100, bias=0.5)
    assert steps.total.item() == pytest.approx(mapped[199, 99].item() + 0.5, abs=1e-3)
    assert cv.apply_kernel(photo, 200, 100, kernel).item() == pytest.approx(mapped[199, 99].item(), abs=1e-3)


def test_channel_products_show_each_step(photo):
    steps = cv.channel_products(photo, cv.kernels.sobel_x, 200, 100, bias=0.5)
    window = photo[:, 199:202, 99:102].long()
    sums = [(window[c] * cv.kernels.sobel_x).sum().item() for c in range(3)]
    assert steps.sums.tolist() == sums and steps.names == ("red", "green", "blue")
    assert torch.equal(steps.products, window * cv.kernels.sobel_x)
    text = str(steps)
    assert text.endswith(f"red {sums[0]:.0f} + green {sums[1]:.0f} + blue {sums[2]:.0f} + bias 0.5 = {sum(sums) + 0.5}")
    for pixels in window[0].tolist():
        assert " ".join(map(str, pixels)) in text


def test_negative_sums_are_in_brackets():
    steps = cv.channel_products(torch.ones(2, 3, 3), -torch.ones(3, 3), 1, 1)
    assert steps.equation() == "channel 0 (-9) + channel 1 (-9) = -18"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cv.apply_kernel(x, 0, 0, top_edge), "no complete 3×3 window lies around row 0, column 0"),
        (lambda x: cv.apply_kernel(x, 0, 0, top_edge), "rows go from 1 to 26, columns from 1 to 26"),
        (lambda x: cv.apply_kernel(x, 5, 27, top_edge), "columns from 1 to 26"),
        (lambda x: cv.apply_kernel(x, -3, 5, top_edge), "row -3"),
        (lambda x: cv.apply_kernel(x, 27, 1, torch.ones(2, 4)), "rows go from 0 to 26, columns from 1 to 25"),
        (lambda x: cv.apply_kernel(x, 5, 5, torch.ones(29, 3)), "kernel of 29×3 is larger than the image of 28×28"),
        (lambda x: cv.apply_kernel(x[0], 5, 5, top_edge), "these have shapes (28,) and (3, 3)"),
        (lambda x: cv.apply_kernel(x, 5, 5, torch.ones(3, 3, 3)), "these have shapes (28, 28) and (3, 3, 3)"),
        (lambda x: cv.apply_kernel(x.expand(2, 28, 28), 5, 5, torch.ones(3, 3, 3)), "has 3 channels, the image 2"),
        (lambda x: cv.feature_map(x / 0, top_edge), "784 values that are nan or infinite, the first at (0, 0)"),
        (lambda x: cv.feature_map(x, top_edge * float("nan")), "the kernel has 9 values"),
        (lambda x: cv.feature_map(x, torch.ones(30, 3)), "spans 30 pixels does not fit into 28"),
        (lambda x: cv.feature_map(x.expand(3, 28, 28), torch.ones(4, 3, 3)), "weights for 4 channels, the image has 3"),
        (lambda x: cv.feature_map(x[0], top_edge), "this one has shape (28,)"),
        (lambda x: cv.feature_map(x, top_edge[0]), "a kernel has 2, 3 or 4 axes"),
        (lambda x: cv.feature_map(x, top_edge, padding="same", stride=2), "at stride 1 only"),
        (lambda x: cv.feature_map(x, top_edge, padding=(1, 1, 1)), "does not fit 2 axes"),
        (lambda x: cv.channel_products(x, top_edge, 5, 5, names=("a", "b")), "2 names for 1 channels"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(three, call, message):
    with pytest.raises(UsageError) as caught:
        call(three)
    assert message in str(caught.value)


def test_the_chapters_kernels():
    assert top_edge.tolist() == [[-1, -1, -1], [0, 0, 0], [1, 1, 1]]
    assert cv.kernels.left_edge.tolist() == [[-1, 1, 0], [-1, 1, 0], [-1, 1, 0]]
    assert cv.kernels.diag1_edge.tolist() == [[0, -1, 1], [-1, 1, 0], [1, 0, 0]]
    assert cv.kernels.diag2_edge.tolist() == [[1, -1, 0], [0, 1, -1], [0, 0, 1]]


def test_every_named_kernel_is_a_float_matrix_that_names_its_use():
    kernels = named()
    assert set(cv.kernels.__all__) - {"box", "gaussian", "named"} == {name for name in kernels if "(" not in name}
    flat, ramp = torch.full((9, 9), 7.0), torch.arange(9.0).expand(9, 9)
    for name, kernel in kernels.items():
        assert kernel.dtype == torch.float32 and kernel.ndim == 2 and kernel.is_contiguous()
        on_flat = cv.feature_map(flat, kernel).unique()
        keeps = name.startswith(("identity", "sharpen", "emboss", "box", "gaussian"))
        assert torch.allclose(on_flat, torch.tensor(7.0 if keeps else 7.0 * kernel.sum().item()), atol=1e-5)
        if name.startswith(("sobel", "prewitt", "scharr", "roberts", "laplacian", "top", "bottom", "left", "right")):
            assert kernel.sum() == 0
        if name.endswith("_x"):
            assert (cv.feature_map(ramp, kernel) > 0).all() and (cv.feature_map(ramp.T, kernel) == 0).all()
        if name.endswith("_y"):
            assert (cv.feature_map(ramp.T, kernel) > 0).all() and (cv.feature_map(ramp, kernel) == 0).all()


@pytest.mark.parametrize(("n", "sigma"), [(1, None), (3, None), (5, 1.0), (4, 0.7), (9, 100.0)])
def test_gaussian_is_the_normal_density(n, sigma):
    s = sigma or 0.3 * ((n - 1) * 0.5 - 1) + 0.8  # OpenCV's default
    places = np.arange(n) - (n - 1) / 2
    density = np.exp(-(places[:, None] ** 2 + places[None] ** 2) / (2 * s**2))
    assert np.allclose(cv.kernels.gaussian(n, sigma), density / density.sum(), atol=1e-7)


def test_box_is_the_mean():
    image = torch.rand(6, 6, generator=torch.manual_seed(0))
    assert torch.allclose(cv.feature_map(image, cv.kernels.box(3)), F.avg_pool2d(image[None], 3, 1)[0], atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda: cv.kernels.box(0), lambda: cv.kernels.gaussian(2.5), lambda: cv.kernels.gaussian(3, 0)]
)
def test_kernels_that_cannot_be(make):
    with pytest.raises(UsageError):
        make()


def photo_array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


KINDS = {
    "array": lambda photo: photo,
    "tensor": torch.from_numpy,
    "floats": lambda photo: photo / 255,
    "batch": lambda photo: np.stack([photo, photo]),
    "with alpha": lambda photo: np.concatenate([photo, photo[..., :1]], axis=2),
    "one channel": lambda photo: photo[..., :1],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [0, 1, "same"])
def test_rows_of_a_photo_are_never_taken_for_channels(kind, padding):
    image = KINDS[kind](photo_array())
    with pytest.raises(UsageError, match=r"seems to have its channels last.*permute"):
        cv.feature_map(image, top_edge, padding=padding)
    with pytest.raises(UsageError, match=r"seems to have its channels last|an image \(row, column\) goes with"):
        cv.apply_kernel(image, 5, 1, torch.ones(1, 1))


def test_a_pillow_image_gives_its_channels_by_itself():
    photo = photo_array()
    image = Image.fromarray(photo)
    expected = F.conv2d(torch.from_numpy(photo).permute(2, 0, 1).float()[:, None], top_edge[None, None]).sum(0)[0]
    assert torch.allclose(cv.feature_map(image, top_edge), expected, atol=1e-3)
    assert torch.allclose(cv.apply_kernel(image, 5, 7, top_edge), expected[4, 6], atol=1e-3)
    assert cv.channel_products(image, top_edge, 5, 7).names == ("red", "green", "blue")
    grey = image.convert("L")
    assert torch.equal(cv.feature_map(grey, top_edge), cv.feature_map(np.asarray(grey), top_edge))
    indexed = image.convert("P", palette=Image.Palette.ADAPTIVE)
    assert torch.equal(cv.feature_map(indexed, top_edge), cv.feature_map(indexed.convert("RGB"), top_edge))


@pytest.mark.parametrize("shape", [(32, 4, 4), (16, 3, 3), (512, 1, 1), (3, 9, 4), (1, 30, 3), (4, 28, 28)])
def test_maps_of_layers_keep_their_channels_first(shape):
    x = torch.rand(shape)
    expected = F.conv2d(x[None], torch.ones(1, shape[0], 1, 1))[0, 0]
    assert torch.allclose(cv.feature_map(x, torch.ones(1, 1)), expected, atol=1e-5)


def test_a_kernel_with_channels_says_which_axis_they_are():
    x = torch.rand(32, 9, 3)
    kernel = torch.ones(1, 1).expand(32, -1, -1)
    assert torch.allclose(cv.feature_map(x, kernel), x.sum(0), atol=1e-5)
    assert torch.allclose(cv.apply_kernel(x, 5, 1, kernel), x[:, 5, 1].sum(), atol=1e-5)
