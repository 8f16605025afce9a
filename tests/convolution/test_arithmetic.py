"""Sizes against PyTorch's own layers on the meta device, their inverse against trying every size."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from pellucid.convolution.arithmetic import input_sizes, multiplications, output_size, parameters, same_padding
from pellucid.errors import UsageError

CONVOLUTIONS = nn.Conv1d, nn.Conv2d, nn.Conv3d
TRANSPOSED = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d
MAX_POOLS = nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d
AVERAGE_POOLS = nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d
LP_POOLS = nn.LPPool1d, nn.LPPool2d, nn.LPPool3d
UNPOOLS = nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d


def axes(draw: st.DrawFn, n_axes: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(low, high), min_size=n_axes, max_size=n_axes)))


def torch_size(layer: nn.Module, size: tuple[int, ...], channels: int = 1) -> tuple[int, ...] | None:
    """The size PyTorch gives, None where it refuses or (transposed, on the meta device) nothing is left."""
    try:
        given = tuple(layer(torch.empty(1, channels, *size, device="meta")).shape[2:])
    except RuntimeError:
        return None
    return given if all(given) else None


def our_size(size, *arguments, **options) -> tuple[int, ...] | None:
    try:
        return output_size(size, *arguments, **options)  # pyright: ignore[reportReturnType]
    except UsageError:
        return None


@settings(max_examples=900)
@given(st.data())
def test_convolutions_have_pytorchs_sizes(data):
    n = data.draw(st.integers(1, 3))
    size, kernel = axes(data.draw, n, 1, 24), axes(data.draw, n, 1, 7)
    stride, padding, dilation = (axes(data.draw, n, low, 4) for low in (1, 0, 1))
    groups = data.draw(st.sampled_from([1, 2]))
    layer = CONVOLUTIONS[n - 1](2, 4, kernel, stride, padding, dilation, groups=groups, device="meta")
    assert our_size(size, kernel, stride, padding, dilation) == torch_size(layer, size, 2)
    assert parameters(2, 4, kernel, groups=groups) == sum(p.numel() for p in layer.parameters())


@settings(max_examples=600)
@given(st.data())
def test_poolings_have_pytorchs_sizes_in_ceil_mode_too(data):
    n = data.draw(st.integers(1, 3))
    size, kernel, stride = axes(data.draw, n, 1, 24), axes(data.draw, n, 1, 7), axes(data.draw, n, 1, 8)
    ceil_mode = data.draw(st.booleans())
    kind = data.draw(st.sampled_from(["max", "average", "lp"]))
    dilation = axes(data.draw, n, 1, 3) if kind == "max" else (1,) * n
    padding = tuple(0 if kind == "lp" else data.draw(st.integers(0, k // 2)) for k in kernel)
    # torch's AvgPool3d alone also refuses inputs that only their padding makes large enough
    assume(kind == "max" or n < 3 or all(s >= k for s, k in zip(size, kernel, strict=True)))
    if kind == "max":
        layer = MAX_POOLS[n - 1](kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    elif kind == "average":
        layer = AVERAGE_POOLS[n - 1](kernel, stride, padding, ceil_mode)
    elif n == 1:
        layer = LP_POOLS[0](2, kernel[0], stride[0], ceil_mode)  # pyright: ignore[reportArgumentType]
    else:
        layer = LP_POOLS[n - 1](2, kernel, stride, ceil_mode)
    assert our_size(size, kernel, stride, padding, dilation, ceil_mode=ceil_mode) == torch_size(layer, size)


@settings(max_examples=600)
@given(st.data())
def test_transposed_convolutions_have_pytorchs_sizes(data):
    n = data.draw(st.integers(1, 3))
    size, kernel = axes(data.draw, n, 1, 9), axes(data.draw, n, 1, 6)
    stride, padding, dilation = (axes(data.draw, n, low, 3) for low in (1, 0, 1))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    layer = TRANSPOSED[n - 1](1, 1, kernel, stride, padding, extra, dilation=dilation, device="meta")
    ours = our_size(size, kernel, stride, padding, dilation, transposed=True, output_padding=extra)
    assert ours == torch_size(layer, size)
    if ours:
        back = input_sizes(ours, kernel, stride, padding, dilation, transposed=True, output_padding=extra)
        assert tuple(map(list, back)) == tuple([n] for n in size)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (4, 3, 2)])
def test_unpooling_is_transposed(n, kernel, stride, padding):
    pooled = torch.zeros(1, 1, *[5] * n)
    expected = UNPOOLS[n - 1](kernel, stride, padding)(pooled, torch.zeros_like(pooled, dtype=torch.int64)).shape[2:]
    assert output_size(tuple(pooled.shape[2:]), kernel, stride, padding, transposed=True) == tuple(expected)


@settings(max_examples=300)
@given(st.data())
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_same_padding_keeps_every_size_and_is_pytorchs(data):
    n = data.draw(st.integers(1, 3))
    size, kernel, dilation = (axes(data.draw, n, 1, high) for high in (16, 8, 3))
    padding = same_padding(kernel, dilation)
    assert output_size(size, kernel, padding=padding, dilation=dilation) == size  # pyright: ignore[reportArgumentType]
    assert output_size(size, kernel, padding="same", dilation=dilation) == size
    layer = CONVOLUTIONS[n - 1](1, 1, kernel, padding="same", dilation=dilation, device="meta")
    flat = [(side, side) if isinstance(side, int) else side for side in padding]  # pyright: ignore
    assert layer._reversed_padding_repeated_twice == [pixels for side in reversed(flat) for pixels in side]
    assert torch_size(layer, size) == size


@settings(max_examples=600)
@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3),
    st.sampled_from(["plain", "ceil", "transposed"]),
)  # fmt: skip
def test_input_sizes_are_those_that_a_search_finds(output, kernel, stride, before, after, dilation, mode):
    options = {"transposed": mode == "transposed", "ceil_mode": mode == "ceil"}
    assume(mode != "ceil" or max(before, after) <= (dilation * (kernel - 1) + 1) // 2)
    arguments = kernel, stride, (before, after), dilation
    tried = [n for n in range(1, 120) if our_size(n, *arguments, **options) == output]
    assert list(input_sizes(output, *arguments, **options)) == tried  # pyright: ignore[reportArgumentType]


def test_the_chapters_facts():
    assert output_size(28, kernel=3, stride=2, padding=1) == 14
    grids = [28]
    for _ in range(5):
        grids.append(output_size(grids[-1], kernel=3, stride=2, padding=1))  # pyright: ignore[reportArgumentType]
    assert grids == [28, 14, 7, 4, 2, 1]
    assert all(output_size(h, 3, 2, 1) == (h + 1) // 2 for h in range(1, 300))
    assert output_size((5, 5), kernel=4, padding=2) == (6, 6)
    assert output_size(4, kernel=3) == 2
    assert all(same_padding(ks) == ks // 2 for ks in range(1, 12, 2))
    assert [parameters(*c, 3) for c in ((1, 4), (4, 8), (8, 16), (16, 32), (32, 2))] == [40, 296, 1168, 4640, 578]
    assert multiplications(4, 8, 3, grid=14) == multiplications(8, 16, 3, grid=7) == 56_448
    assert multiplications(4, 8, 3, grid=7) == 14_112 and multiplications(8, 16, 3, grid=4) == 18_432


def test_parameters_and_multiplications_of_other_layers():
    assert parameters(784, 30, kernel=()) == 784 * 30 + 30
    assert multiplications(784, 30, kernel=(), grid=()) == 784 * 30
    assert parameters(32, 32, 3, groups=32, bias=False) == 288
    assert multiplications(32, 32, 3, grid=(10, 20), groups=32) == 288 * 200
    assert parameters(4, 6, kernel=(5,)) == 126 and parameters(1, 2, kernel=(2, 3, 4)) == 50


def test_ints_and_tuples_mix():
    assert output_size(28, kernel=(3, 5)) == (26, 24)
    assert output_size((28, 32), 3, stride=(1, 2), padding=((1, 0), 1)) == (27, 16)
    assert output_size((28,), 4, padding=(1, 2)) == (28,) and output_size(28, 4, padding=(1, 2)) == 28
    assert input_sizes((14, 4), 3, (2, 1), padding=1) == (range(27, 29), range(4, 5))
    assert input_sizes(28, 4, padding="same") == range(28, 29)
    assert input_sizes(6, kernel=3, stride=2, transposed=True) == range(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 3, "kernel": 5}, "spans 5 pixels does not fit into 3; it needs 5 or more"),
        ({"size": 3, "kernel": 3, "dilation": 4, "padding": 1}, "with padding 1 before, 1 after; it needs 7 or more"),
        ({"size": 28, "kernel": 0}, "kernel must be a whole number of 1 or more, not 0"),
        ({"size": 28, "kernel": 2.5}, "kernel must be a whole number of 1 or more, not 2.5"),
        ({"size": 28, "kernel": 3, "padding": -1}, "padding must be a whole number of 0 or more, not -1"),
        ({"size": (28, 28), "kernel": (3, 3, 3)}, "size has 2, kernel has 3"),
        ({"size": (8, 8), "kernel": 3, "padding": (1, 1, 1)}, "does not fit 2 axes"),
        ({"size": 8, "kernel": 3, "padding": (1, 2, 3)}, "an int or (before, after)"),
        ({"size": 28, "kernel": 3, "stride": 2, "padding": "same"}, "at stride 1 only"),
        ({"size": 28, "kernel": 3, "padding": "Same"}, "give pixels, 'same' or 'valid'"),
        ({"size": 28, "kernel": 3, "padding": "same", "transposed": True}, "give pixels"),
        ({"size": 28, "kernel": 3, "output_padding": 1}, "add transposed=True"),
        ({"size": 28, "kernel": 3, "stride": 2, "output_padding": 2, "transposed": True}, "smaller than the stride 2"),
        ({"size": 1, "kernel": 3, "padding": 2, "transposed": True}, "nothing is left"),
        ({"size": 8, "kernel": 3, "padding": 2, "ceil_mode": True}, "at most half of its kernel"),
        ({"size": 8, "kernel": 3, "ceil_mode": True, "transposed": True}, "belongs to poolings"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(UsageError) as caught:
        output_size(**arguments)
    assert message in str(caught.value)


def test_groups_must_divide_the_channels():
    with pytest.raises(UsageError, match="6 and 8 channels cannot be divided into 4 groups"):
        parameters(6, 8, 3, groups=4)


def test_arithmetic_does_without_torch():
    code = "import sys; from pellucid import convolution as cv; cv.output_size(28, 3); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
