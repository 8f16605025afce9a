from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.layers import (
    AdaptiveConcatPool2d,
    AvgPool,
    ConvLayer,
    Flatten,
    LinBnDrop,
    MaxPool,
    Module,
    PoolFlatten,
    ResBlock,
    init_default,
    init_linear,
    sequential,
)
from pellucid.nn.norms import BatchNorm, InstanceNorm, NormType, norm_layer


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


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("ks", "stride", "padding"), [(3, 1, None), (5, 2, None), (4, 2, None), (2, 2, 0), (3, 2, 1)])
def test_a_convolution_is_torchs_with_its_padding(ndim, transpose, ks, stride, padding):
    x = torch.randn(2, 4, *[9] * ndim, dtype=torch.float64)
    layer = ConvLayer(4, 6, ks, stride, padding, ndim=ndim, transpose=transpose, norm_type=None).double()
    function = getattr(F, f"conv{'_transpose' * transpose}{ndim}d")
    pad = (0 if transpose else (ks - 1) // 2) if padding is None else padding
    assert torch.equal(layer(x), function(x, layer[0].weight, layer[0].bias, stride=stride, padding=pad).relu())


@pytest.mark.parametrize(
    ("options", "order", "bias"),
    [
        ({"norm_type": NormType.Batch}, ["Conv2d", "BatchNorm2d", "ReLU"], False),
        ({"norm_type": NormType.BatchZero, "bn_1st": False}, ["Conv2d", "ReLU", "BatchNorm2d"], False),
        ({"norm_type": NormType.Instance}, ["Conv2d", "InstanceNorm2d", "ReLU"], False),
        ({"norm_type": NormType.Weight, "act_cls": nn.GELU}, ["ParametrizedConv2d", "GELU"], True),
        ({"norm_type": NormType.Spectral}, ["ParametrizedConv2d", "ReLU"], True),
        ({"norm_type": NormType.Group, "bn_1st": False}, ["Conv2d", "ReLU", "GroupNorm"], True),
        ({"norm_type": NormType.Layer}, ["Conv2d", "GroupNorm", "ReLU"], True),
        ({"norm_type": None, "act_cls": None}, ["Conv2d"], True),
        ({"ndim": 3, "bias": True}, ["Conv3d", "BatchNorm3d", "ReLU"], True),
        ({"transpose": True, "ndim": 1}, ["ConvTranspose1d", "BatchNorm1d", "ReLU"], False),
        ({"xtra": nn.Dropout(), "groups": 2, "dilation": 3}, ["Conv2d", "BatchNorm2d", "ReLU", "Dropout"], False),
    ],
)
def test_order_and_bias_in_fastais_words(options, order, bias):
    layer = ConvLayer(4, 8, **options)
    assert kinds(layer) == order
    assert (layer[0].bias is not None) == bias
    assert layer(torch.randn(2, 4, *[9] * options.get("ndim", 2))).shape[:2] == (2, 8)


def test_norms_of_the_kernel():
    x = torch.randn(2, 4, 7, 7)
    layer = ConvLayer(4, 8, norm_type=NormType.Weight, act_cls=None)
    g, v = (
        p.detach() for p in (layer[0].parametrizations.weight.original0, layer[0].parametrizations.weight.original1)
    )
    kernel = g * v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert torch.allclose(layer(x), F.conv2d(x, kernel, layer[0].bias, padding=1), atol=1e-5)
    layer = ConvLayer(4, 8, norm_type=NormType.Spectral)
    for _ in range(50):
        layer(x)
    assert torch.linalg.matrix_norm(layer[0].weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("act", "begin"),
    [
        (nn.ReLU, nn.init.kaiming_uniform_),
        (nn.LeakyReLU, nn.init.kaiming_uniform_),
        (nn.SiLU, nn.init.kaiming_uniform_),
        (nn.Sigmoid, nn.init.xavier_uniform_),
        (nn.Tanh, nn.init.xavier_uniform_),
        (nn.GELU, None),
        (None, None),
    ],
)
def test_how_weights_begin(act, begin):
    torch.manual_seed(0)
    layer = ConvLayer(4, 8, norm_type=None, act_cls=act)
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3)
    nn.init.normal_(conv.bias, 0, 0.01)
    if begin:
        begin(conv.weight)
    assert torch.equal(layer[0].weight, conv.weight) and torch.equal(layer[0].bias, conv.bias)


def test_other_beginnings():
    torch.manual_seed(0)
    layer = ConvLayer(4, 8, norm_type=None, init=None, bias_std=None)
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 8, 3)
    assert torch.equal(layer[0].weight, conv.weight) and torch.equal(layer[0].bias, conv.bias)
    linear = init_default(nn.Linear(5, 6), nn.init.ones_)
    assert (linear.weight == 1).all() and (linear.bias == 0).all()
    assert init_default(nn.ReLU()) is not None
    init_linear(linear, nn.ReLU(), init=nn.init.zeros_, bias_std=0)
    assert (linear.weight == 0).all() and (linear.bias == 0).all()
    with pytest.raises(UsageError, match="init 'kaiming' does not exist"):
        ConvLayer(4, 8, init="kaiming")
    for norm, scale in ((BatchNorm(5), 1), (BatchNorm(5, norm_type=NormType.BatchZero), 0), (InstanceNorm(5, 1), 1)):
        assert (norm.weight == scale).all() and (norm.bias == 1e-3).all()
    assert InstanceNorm(5, affine=False).weight is None


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 3}, {"norm_type": NormType.Instance}, {"ks": 5}])
@pytest.mark.parametrize(("expansion", "ni", "nf"), [(1, 8, 8), (1, 4, 8), (4, 4, 4), (4, 4, 8)])
def test_a_residual_block_by_hand(expansion, ni, nf, options):
    block = ResBlock(expansion, ni, nf, **options)
    stride, x = options.get("stride", 1), torch.randn(2, ni * expansion, 11, 11)
    for m in block.modules():  # so that the last norm lets something through
        if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d):
            nn.init.uniform_(m.weight)
    convs = [m for m in block.convs.modules() if isinstance(m, nn.Conv2d)]
    ks = options.get("ks", 3)
    assert [c.kernel_size[0] for c in convs] == ([ks, ks] if expansion == 1 else [1, ks, 1])
    assert [c.out_channels for c in convs] == ([nf, nf] if expansion == 1 else [nf, nf, nf * 4])
    way = F.avg_pool2d(x, stride, ceil_mode=True) if stride > 1 else x
    if ni != nf:
        way = block.shortcut[-1](way)
    assert torch.allclose(block(x), F.relu(block.convs(x) + way), atol=1e-6)


def test_options_of_a_residual_block():
    wide = ResBlock(1, 8, 8, nh2=12, groups=4, g2=2)
    assert [(c[0].out_channels, c[0].groups) for c in wide.convs] == [(12, 4), (8, 2)]
    deep = ResBlock(2, 4, 8, nh1=6, nh2=10, dw=False, pool=MaxPool, pool_first=False, stride=2)
    assert [c[0].out_channels for c in deep.convs] == [6, 10, 16]
    assert [type(m).__name__ for m in deep.shortcut] == ["ConvLayer", "MaxPool2d"]
    assert ResBlock(1, 8, 8, dw=True).convs[0][0].groups == 8
    assert ResBlock(1, 8, 8, act_cls=nn.SiLU, ndim=1)(torch.randn(2, 8, 9)).shape == (2, 8, 9)
    for options in ({"reduction": 16}, {"sa": True}):
        with pytest.raises(UsageError, match="not in this ResBlock"):
            ResBlock(1, 8, 8, **options)
    with pytest.raises(TypeError, match="nf"):
        ResBlock(8, 16)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="ndim is the number of axes of an image"):
        ConvLayer(3, 8, ndim=4)


def test_pools_and_heads():
    x = torch.randn(2, 5, 7, 6)
    both = torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1)
    assert torch.allclose(AdaptiveConcatPool2d()(x).flatten(1), both, atol=1e-6)
    assert AdaptiveConcatPool2d(2)(x).shape == (2, 10, 2, 2)
    for kind, expected in (("Avg", both[:, 5:]), ("Max", both[:, :5]), ("Cat", both)):
        assert torch.allclose(PoolFlatten(kind)(x), expected, atol=1e-6)
    with pytest.raises(UsageError, match="'Sum' does not exist"):
        PoolFlatten("Sum")
    assert torch.equal(AvgPool(2, ceil_mode=True)(x), F.avg_pool2d(x, 2, ceil_mode=True))
    assert torch.equal(Flatten(full=True)(x), x.reshape(-1))
    assert kinds(LinBnDrop(4, 5, p=0.2, act=nn.ReLU())) == ["BatchNorm1d", "Dropout", "Linear", "ReLU"]
    assert kinds(LinBnDrop(4, 5, p=0.2, act=nn.ReLU(), lin_first=True)) == ["Linear", "ReLU", "BatchNorm1d", "Dropout"]
    assert LinBnDrop(4, 5)[1].bias is None and LinBnDrop(4, 5, bn=False)[0].bias is not None
    assert torch.equal(sequential(nn.Flatten(), torch.relu)(x), x.flatten(1).relu())


class Own(Module):
    def __init__(self, n: int):
        self.linear = nn.Linear(n, 2)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.linear(x) * self.scale


class Late(Module):
    def __init__(self):
        self.linear = nn.Linear(3, 2)
        super().__init__()


def test_a_module_without_super():
    own = Own(3)
    assert sorted(dict(own.named_parameters())) == ["linear.bias", "linear.weight", "scale"]
    for twin in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert torch.equal(twin(torch.ones(1, 3)), own(torch.ones(1, 3)))
    assert len(list(Late().parameters())) == 2
