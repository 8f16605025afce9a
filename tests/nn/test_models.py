from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.convolution.summary import summarize
from pellucid.errors import UsageError
from pellucid.nn.models import conv, create_model, plain_cnn, simple_cnn


def n_params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_chapters_networks_are_the_defaults():
    assert n_params(simple_cnn()) == n_params(simple_cnn(norm=True)) == n_params(simple_cnn(norm="batch")) == 30_542
    assert n_params(plain_cnn()) == n_params(simple_cnn(norm=False)) == n_params(simple_cnn(norm=None)) == 30_282
    assert [type(m).__name__ for m in simple_cnn()[0]] == ["Conv2d", "ReLU", "BatchNorm2d"]


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "layer", None, True, False])
@pytest.mark.parametrize("act_first", [True, False])
@pytest.mark.parametrize("pool", [None, "max", "avg"])
def test_every_variant_keeps_the_sizes_and_trains_every_weight(norm, act_first, pool):
    torch.manual_seed(0)
    model = simple_cnn(norm=norm, act_first=act_first, pool=pool, first_ks=3)
    sizes: list[tuple[int, ...]] = []
    for layer in model[:-1]:
        layer.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[1:])))
    nn.functional.cross_entropy(model(torch.randn(32, 1, 28, 28)), torch.arange(32) % 10).backward()
    assert sizes == [(8, 14, 14), (16, 7, 7), (32, 4, 4), (64, 2, 2), (10, 1, 1)]
    for layer in model[:-1]:
        assert layer[0].weight.grad.isfinite().all() and layer[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"first_ks": 3}, 30_542 - 8 * (25 - 9)),
        ({"norm": "group"}, 30_282 + 2 * (8 + 16 + 32 + 64)),
        ({"norm": "layer", "norm_last": True}, 30_542),
        ({"norm": "batch", "norm_last": False}, 30_542 - 20),
        ({"act_first": False, "pool": "max"}, 30_542),
    ],
)
def test_one_keyword_changes_one_thing(options, expected):
    assert n_params(simple_cnn(**options)) == expected


def test_norm_and_order_reach_every_layer():
    model = simple_cnn(norm="group", act_first=False)
    assert all([type(m).__name__ for m in layer] == ["Conv2d", "GroupNorm", "ReLU"] for layer in model[:4])
    assert [type(m).__name__ for m in model[4]] == ["Conv2d"]
    assert [type(m).__name__ for m in simple_cnn(act_first=False)[4]] == ["Conv2d", "BatchNorm2d"]


@pytest.mark.parametrize("n", [5, 6, 7])
def test_pooling_takes_two_by_two_pixels_of_a_stride_1_layer(n):
    torch.manual_seed(0)
    x = torch.randn(2, 1, n, n)
    for pool, reduce in (("max", torch.amax), ("avg", torch.mean)):
        layer = conv(1, 4, norm="batch", pool=pool)
        full = layer[:-1](x)
        assert full.shape[2:] == (n, n)
        half = -(-n // 2)
        corners = [(slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2)) for i in range(half) for j in range(half)]
        expected = torch.stack([reduce(full[:, :, r, c], dim=(2, 3)) for r, c in corners], -1).unflatten(
            -1, (half, half)
        )
        assert torch.allclose(layer(x), expected, atol=1e-6)
        assert conv(1, 4, norm="batch")(x).shape == expected.shape


def test_pooling_costs_the_multiplications_of_the_whole_map():
    def total(model):
        return sum(row.n_multiplications for row in summarize(model, torch.zeros(1, 1, 28, 28)).rows)

    stride, pooled = total(plain_cnn()), total(simple_cnn(norm=False, pool="max"))
    assert pooled == sum(
        side**2 * ni * nf * ks**2
        for side, ni, nf, ks in ((28, 1, 8, 5), (14, 8, 16, 3), (7, 16, 32, 3), (4, 32, 64, 3), (2, 64, 10, 3))
    )
    assert 3 < pooled / stride < 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"norm": "spectral"}, "norm 'spectral' does not exist"),
        ({"pool": "min"}, "pool 'min' does not exist"),
        ({"first_ks": 4}, "first_ks must be odd"),
        ({"norm": "instance", "norm_last": True}, "one pixel"),
    ],
)
def test_variants_that_do_not_exist(options, said):
    with pytest.raises(UsageError, match=said):
        simple_cnn(**options)


def test_an_architecture_that_does_not_exist():
    with pytest.raises(UsageError, match="use one of simple_cnn, plain_cnn, small_resnet"):
        create_model("resnet9000", 1, 10, 28)
