"""A layer asked for in any of the ways is the same layer for every reader."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pellucid
from pellucid import convolution as cv
from pellucid.errors import UsageError
from pellucid.nn.models import create_model


def model() -> nn.Module:
    torch.manual_seed(0)
    return create_model("simple_cnn", 1, 2, 28).eval()


def history(net: nn.Module) -> pellucid.History:
    with pellucid.watch(net) as seen:
        net.train()(torch.rand(4, 1, 28, 28))
    net.eval()
    return seen.history


@pytest.mark.parametrize(("number", "name"), [(0, "0.0"), (1, "0.2"), (2, "1.0"), (-2, "4.0"), (-4, "3.0"), (8, "4.0")])
def test_a_number_counts_layers_with_parameters_for_every_reader(number, name, tmp_path):
    net, image = model(), torch.rand(1, 28, 28)
    fields, seen = cv.receptive_field(net, (1, 28, 28)), history(net)
    module = net.get_submodule(name)
    for layer in (number, name, module):
        assert fields[layer].name == name
        assert cv.trace(net, image, layer).layer == name
    assert seen.layers[seen.index(number)].name == seen.layers[seen.index(name)].name == name
    if isinstance(module, nn.Conv2d):
        for layer in (number, name, module):
            written = cv.to_spreadsheet(net, image, tmp_path / "a.xlsx", [layer], channels=1)
            assert list(written.ranges)[1] == name


def test_layers_that_the_model_does_not_call_count_too():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))

    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.unused, self.last = net[0], nn.Linear(3, 3), net[2]

        def forward(self, x):
            return self.last(self.first(x))

    skipping, image = Skipping(), torch.rand(1, 9, 9)
    for layer in (2, "last", -1):
        assert cv.trace(skipping, image, layer).layer == cv.receptive_field(skipping, (1, 9, 9))[layer].name == "last"
    with pytest.raises(UsageError, match=r"layer 1 was not called on this image: Skipping has first \(Conv2d\), last"):
        cv.trace(skipping, image, 1)


def test_the_calls_of_a_module_called_twice_have_names_of_their_own():
    conv = nn.Conv2d(1, 1, 3, padding=1)
    net, image = nn.Sequential(conv, nn.ReLU(), conv), torch.rand(1, 9, 9)
    fields = cv.receptive_field(net, (1, 9, 9))
    assert [row.name for row in cv.layer_counts(net, (1, 9, 9)).rows] == ["0", "1", "0#2"]
    assert [row.name for row in fields.layers] == cv.trace(net, image).network.labels == ["0", "1", "0#2"]
    for layer in ("0", "0#1", conv, 0, -1):
        assert fields[layer].size == (3, 3) and cv.trace(net, image, layer).place == 0
    assert fields["0#2"].size == (5, 5) and cv.trace(net, image, "0#2").place == 2
