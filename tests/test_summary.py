from __future__ import annotations

import pytest
import torch
from torch import nn

from pellucid.models import plain_cnn, simple_cnn, small_resnet
from pellucid.summary import multiplications, summarize


@pytest.mark.parametrize(("make", "n_params"), [(simple_cnn, 30_542), (plain_cnn, 30_282)])
def test_parameters_of_the_chapters_networks(make, n_params):
    table = summarize(make(), torch.zeros(2, 1, 28, 28))
    assert table.n_params == n_params == sum(row.n_params for row in table.rows)


@pytest.mark.parametrize("size", [17, 28, 32, 33, 64, 100])
def test_simple_cnn_ends_in_one_pixel_whatever_the_size(size):
    assert simple_cnn(3, 7, size)(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("size", [(32, 32), (65, 90), (128, 128)])
def test_small_resnet_takes_any_size(size):
    assert small_resnet(3, 5)(torch.zeros(2, 3, *size)).shape == (2, 5)


def brute_force(layer: nn.Module, x: torch.Tensor) -> int:
    """Count by setting weights and inputs to one: with no padding each multiplication adds one to the outputs' sum."""
    with torch.no_grad():
        layer.weight.fill_(1)
        return int(layer(torch.ones_like(x)).sum())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 8, 3, bias=False), (1, 3, 9, 7)),
        (nn.Conv2d(4, 8, 3, stride=2, groups=2, bias=False), (1, 4, 9, 9)),
        (nn.Conv2d(2, 2, 3, dilation=2, groups=2, bias=False), (1, 2, 11, 11)),
        (nn.Conv1d(2, 5, 4, bias=False), (1, 2, 20)),
        (nn.Conv3d(1, 2, 2, bias=False), (1, 1, 4, 5, 6)),
        (nn.ConvTranspose2d(3, 4, 3, stride=2, bias=False), (1, 3, 5, 5)),
        (nn.Linear(6, 5, bias=False), (1, 6)),
        (nn.Linear(6, 5, bias=False), (1, 3, 6)),
    ],
)
def test_multiplications_equal_a_count_by_ones(layer, shape):
    x = torch.zeros(shape)
    assert multiplications(layer, x, layer(x)) == brute_force(layer, x)


def test_shared_layers_are_counted_once_and_shown_at_each_call():
    layer = nn.Linear(4, 4)
    table = summarize(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(2, 4))
    assert [row.n_params for row in table.rows] == [20, 0, 0]
    assert table.n_params == 20


def test_summary_leaves_the_model_as_it_was():
    model = simple_cnn().train()
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    summarize(model, torch.randn(4, 1, 28, 28))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and not model[1].training
    assert not any(m._forward_hooks for m in model.modules())
