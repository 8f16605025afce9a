from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pellucid.errors import UsageError
from pellucid.groups import default_split, params, split, split_at, spread, trainable_params
from pellucid.models import simple_cnn

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


@pytest.mark.parametrize(
    ("lr", "n", "said"),
    [
        (slice(1e-4, 1e-2), 1, r"slice\(0.0001, 0.01\) spreads .* has only one: .*splitter=split_at\(-1\)"),
        (slice(1e-4, None), 2, "slice"),
        (slice(1e-4, 1e-2, 3), 2, "slice"),
        (slice(0, 1e-2), 2, "positive"),
        (slice(-1, 1e-2), 2, "positive"),
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
