from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.errors import UsageError
from pellucid.layers import ConvLayer, ResBlock
from pellucid.norms import norm_layer


def normalised(x: torch.Tensor, kind: str) -> torch.Tensor:
    """By the definitions, in float64: over which axes mean and variance are taken."""
    x = x.double()
    batch, channels = x.shape[:2]
    if kind == "batch":
        axes, grouped = (0, 2, 3), x
    elif kind == "instance":
        axes, grouped = (2, 3), x
    else:
        n_groups = {"layer": 1, "group": {8: 2, 12: 3, 6: 1, 10: 2, 128: 32, 256: 32}.get(channels)}[kind]
        axes, grouped = (2, 3, 4), x.reshape(batch, n_groups, channels // n_groups, *x.shape[2:])
    mean, variance = grouped.mean(axes, keepdim=True), grouped.var(axes, keepdim=True, correction=0)
    return ((grouped - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)


@pytest.mark.parametrize("kind", ["batch", "group", "instance", "layer"])
@pytest.mark.parametrize("channels", [8, 12, 6, 10, 128, 256])
def test_norms_normalise_what_they_say(kind, channels):
    x = 3 * torch.randn(4, channels, 5, 5, generator=torch.Generator().manual_seed(0)) + 2
    layer = norm_layer(kind, channels)
    assert torch.allclose(layer(x).double(), normalised(x, kind), atol=1e-4)
    assert sum(p.numel() for p in layer.parameters()) == 2 * channels


def test_group_norm_is_neither_layer_nor_instance_norm_on_few_channels():
    x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    results = {kind: norm_layer(kind, 8)(x) for kind in ("batch", "group", "instance", "layer")}
    for a in results:
        for b in results:
            assert (a == b) == torch.allclose(results[a], results[b], atol=1e-3)


def kinds(layer: nn.Module) -> list[str]:
    return [type(m).__name__ for m in layer.children()]


@pytest.mark.parametrize(
    ("options", "order", "bias"),
    [
        ({}, ["Conv2d", "BatchNorm2d", "ReLU"], False),
        ({"act_first": True}, ["Conv2d", "ReLU", "BatchNorm2d"], True),
        ({"norm": None}, ["Conv2d", "ReLU"], True),
        ({"norm": "instance"}, ["Conv2d", "InstanceNorm2d", "ReLU"], False),
        ({"norm": "group"}, ["Conv2d", "GroupNorm", "ReLU"], True),
        ({"norm": "layer", "act": None}, ["Conv2d", "GroupNorm"], True),
        ({"act": None, "act_first": True}, ["Conv2d", "BatchNorm2d"], False),
        ({"act": nn.SiLU, "bias": True}, ["Conv2d", "BatchNorm2d", "SiLU"], True),
    ],
)
def test_order_and_bias_of_a_conv_layer(options, order, bias):
    layer = ConvLayer(3, 8, stride=2, **options)
    assert kinds(layer) == order
    assert (layer[0].bias is not None) == bias
    assert layer(torch.randn(2, 3, 9, 9)).shape == (2, 8, 5, 5)


@pytest.mark.parametrize(("norm", "undone"), [("batch", True), ("instance", True), ("group", False), ("layer", False)])
def test_a_bias_is_left_out_only_where_the_norm_would_undo_it(norm, undone):
    torch.manual_seed(0)
    layer, x = ConvLayer(3, 8, norm=norm, act=None, bias=True), torch.randn(4, 3, 6, 6)
    before = layer(x)
    with torch.no_grad():
        layer[0].bias += torch.arange(8.0)
    assert torch.allclose(layer(x), before, atol=1e-4) == undone
    assert (ConvLayer(3, 8, norm=norm)[0].bias is None) == undone


def test_a_norm_that_does_not_exist():
    with pytest.raises(UsageError, match="norm 'spectral' does not exist: use 'batch', 'group', 'instance', 'layer'"):
        ConvLayer(3, 8, norm="spectral")


def test_a_fresh_residual_block_passes_its_input_on():
    x = torch.randn(2, 8, 6, 6).abs()
    assert torch.allclose(ResBlock(1, 8, 8)(x), x + 1e-3)  # the shift that norms begin with
    assert ResBlock(1, 8, 16, stride=2)(x).shape == (2, 16, 3, 3)
