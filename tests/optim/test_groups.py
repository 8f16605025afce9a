from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid.errors import UsageError
from pellucid.nn.models import simple_cnn
from pellucid.optim.groups import default_split, params, split, split_at, spread, trainable_params

MODEL = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4), nn.Linear(4, 5))
rates = st.floats(1e-8, 10)


@given(rates, rates, st.integers(2, 6))
def test_a_slice_spreads_in_equal_ratios(a, b, n):
    lrs = spread(slice(a, b), n)
    assert lrs[0] == pytest.approx(a) and lrs[-1] == pytest.approx(b) and len(lrs) == n
    ratios = [lrs[i + 1] / lrs[i] for i in range(n - 1)]
    assert ratios == pytest.approx([(b / a) ** (1 / (n - 1))] * (n - 1))


@given(rates, st.integers(1, 6))
def test_numbers_lists_and_open_slices(lr, n):
    assert spread(lr, n) == [lr] * n
    assert spread([lr] * n, n) == [lr] * n
    assert spread(slice(lr), n) == [lr / 10] * (n - 1) + [lr]
    assert spread(slice(2 * lr, lr), 1) == [lr]  # as fastai has it


@pytest.mark.parametrize(
    "kind",
    [float, np.float64, np.float32, np.array, torch.tensor, Fraction, lambda v: torch.tensor(v).double()],
)
def test_numbers_of_any_kind_are_rates(kind):
    lr = kind(0.25)  # the same in every type
    for given_, expected in ((lr, [0.25] * 3), ([lr] * 3, [0.25] * 3), (slice(lr), [0.025, 0.025, 0.25])):
        rates = spread(given_, 3)
        assert rates == expected and all(type(rate) is float for rate in rates)
    assert spread(slice(lr, lr), 2) == [0.25, 0.25]
    assert spread(np.array([1, 2]), 2) == spread(torch.tensor([1.0, 2.0]), 2) == [1.0, 2.0]


def test_a_parameter_is_in_the_first_group_that_has_it():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight, tied[1].bias = tied[0].weight, tied[0].bias
    assert split(tied, lambda m: [params(m[0]), params(m[1]), params(m[2])]) == [params(tied[0]), params(tied[2])]


@pytest.mark.parametrize(
    ("lr", "n", "said"),
    [
        (slice(1e-4, None), 2, "slice"),
        (slice(1e-4, 1e-2, 3), 2, "slice"),
        (slice(0, 1e-2), 2, "positive"),
        (slice(-1, 1e-2), 2, "positive"),
        (slice(-1, 1e-2), 1, "positive"),
        (slice(-1e-2), 2, "cannot be negative"),
        (-1e-3, 1, "cannot be negative, got -0.001"),
        (float("nan"), 1, "one finite number, got nan"),
        (np.inf, 2, "one finite number, got inf"),
        (["0.1"], 1, "one finite number, got '0.1'"),
        ("0.1", 1, "a number, one number a parameter group, or a slice, got '0.1'"),
        (None, 1, "got None"),
        (True, 1, "got True"),
        (1j, 1, "got 1j"),
        (np.array(1j), 1, "one finite number"),
        (torch.tensor([[0.1]]), 1, "one finite number"),
        ([1, 2, 3], 2, "3 learning rates for 2 parameter groups"),
    ],
)
def test_rates_that_fit_no_groups(lr, n, said):
    with pytest.raises(UsageError, match=said):
        spread(lr, n)


def names(group: list[nn.Parameter], model: nn.Module = MODEL) -> list[str]:
    return [name for p in group for name, q in model.named_parameters() if p is q]


def test_splitters_cut_between_children():
    assert [names(g) for g in split_at(2, 3)(MODEL)] == [
        ["0.weight", "0.bias"],
        ["2.weight", "2.bias"],
        ["3.weight", "3.bias"],
    ]
    assert [names(g) for g in default_split(MODEL)] == [names(params(MODEL))[:2], names(params(MODEL))[2:]]
    assert [names(g) for g in split_at(-1)(MODEL)] == [names(params(MODEL))[:4], names(params(MODEL))[4:]]
    assert names(params(MODEL)) == names(trainable_params(MODEL))
    model = simple_cnn()
    model[0].requires_grad_(False)
    assert names(trainable_params(model), model) == names(params(model), model)[4:]


@pytest.mark.parametrize("cuts", [(0,), (4,), (-4,), (2, 2), (3, 1), (9,)])
def test_cuts_that_cut_nothing_off(cuts):
    with pytest.raises(UsageError, match="does not cut 4 children"):
        split_at(*cuts)(MODEL)


def test_a_model_that_is_no_sequential():
    with pytest.raises(UsageError, match="this model is a Linear"):
        default_split(nn.Linear(2, 2))


def test_what_splitters_may_give():
    assert split(MODEL, params) == [params(MODEL)]
    assert split(MODEL, lambda m: (g for g in default_split(m))) == default_split(MODEL)
    assert split(MODEL, lambda m: [params(m[1]), params(m[2])]) == [params(MODEL[2])]  # ReLU has none
    assert split(nn.ReLU(), params) == [[]]
    with pytest.raises(UsageError, match="group 1 holds a Linear, not parameters"):
        split(MODEL, lambda m: [params(m[0]), m[2]])
    assert isinstance(split(MODEL, params)[0][0], torch.Tensor)
