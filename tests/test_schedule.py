from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pellucid import schedule as s
from pellucid.errors import UsageError

fractions = st.floats(0, 1)
rates = st.floats(1e-6, 10)


def test_one_cycle_gives_the_observed_rates_of_eight_steps():
    rates = [s.one_cycle(0.06)(k / 8) for k in range(8)]
    assert rates == pytest.approx([0.0024, 0.0312, 0.06, 0.05598, 0.0450, 0.0300, 0.0150, 0.00402], abs=6e-5)


@given(start=rates, end=rates, pos=fractions)
def test_every_leg_stays_between_its_ends_and_meets_them(start, end, pos):
    for leg in (s.linear, s.cosine, s.exponential):
        value = leg(start, end)
        assert value(0) == pytest.approx(start)
        assert value(1) == pytest.approx(end)
        assert min(start, end) * (1 - 1e-9) <= value(pos) <= max(start, end) * (1 + 1e-9)


def test_cosine_legs_agree_with_torch_one_cycle():
    # torch divides the initial rate by final_div_factor, we the highest; its up-leg ends one step earlier
    n, lr = 41, 0.06
    opt = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    torch_cycle = torch.optim.lr_scheduler.OneCycleLR(
        opt, lr, total_steps=n, pct_start=11 / n, div_factor=25, final_div_factor=1e5 / 25, cycle_momentum=False
    )
    ours = s.one_cycle(lr, pct_start=0.25)
    for step in range(n):
        assert ours(step / (n - 1)) == pytest.approx(torch_cycle.get_last_lr()[0], rel=1e-9)
        opt.step()
        if step < n - 1:
            torch_cycle.step()


def test_linear_one_cycle_is_straight():
    cycle = s.one_cycle(1.0, div=10, div_final=10, pct_start=0.5, legs="linear")
    assert [cycle(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([0.1, 0.55, 1.0, 0.55, 0.1])


def test_momentum_mirrors_the_rate():
    mom = s.cyclical_momentum()
    assert [mom(0), mom(0.25), mom(1)] == pytest.approx([0.95, 0.85, 0.95])


def test_flat_cosine_is_flat_then_falls():
    flat = s.flat_cosine(2.0)
    assert flat(0) == flat(0.7) == 2.0
    assert flat(0.875) == pytest.approx((2 + 2e-5) / 2)


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=5), fractions)
def test_combined_runs_the_part_that_holds_the_position(weights, pos):
    parts = [w / math.fsum(weights) for w in weights]
    value = s.combined(parts, [s.constant(i) for i in range(len(parts))])(pos)
    edges = [math.fsum(parts[:i]) for i in range(len(parts) + 1)]
    assert edges[int(value)] - 1e-9 <= pos <= edges[int(value) + 1] + 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: s.combined([0.5, 0.6], [s.constant(1), s.constant(2)]), "add up to 1"),
        (lambda: s.combined([1.0], []), "1 fractions for 0 schedules"),
        (lambda: s.exponential(0, 1), "positive"),
        (lambda: s.one_cycle(1, div=0), "div divides a learning rate and must be above 0, got 0"),
        (lambda: s.one_cycle(1, div_final=-1), "div_final divides .* got -1"),
        (lambda: s.flat_cosine(1, div_final=0), "div_final divides .* got 0"),
        (lambda: s.one_cycle(1, legs="sine"), "'cosine' or 'linear'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(UsageError, match=message):
        make()


# fastai's documentation defines its schedules by these formulas, and pairs of fractions and schedules.
FASTAI = {
    "SchedLin": lambda start, end, pos: start + pos * (end - start),
    "SchedCos": lambda start, end, pos: start + (1 + math.cos(math.pi * (1 - pos))) * (end - start) / 2,
    "SchedNo": lambda start, end, pos: start,
    "SchedExp": lambda start, end, pos: start * (end / start) ** pos,
}


@pytest.mark.parametrize("name", FASTAI)
@given(start=rates, end=rates, pos=fractions, pct=st.floats(0.01, 0.99))
def test_fastais_names_have_fastais_values(name, start, end, pos, pct):
    schedule, formula = getattr(s, name), FASTAI[name]
    assert schedule(start, end)(pos) == pytest.approx(formula(start, end, pos), rel=1e-9, abs=1e-12)
    assert s.SchedPoly(start, end, 2)(pos) == pytest.approx(start + (end - start) * pos**2)
    both = s.combine_scheds([pct, 1 - pct], [schedule(start, end), s.SchedCos(end, 0)])
    first = pos < pct
    own = pos / pct if first else (pos - pct) / (1 - pct)
    expected = formula(start, end, own) if first else FASTAI["SchedCos"](end, 0, own)
    assert both(pos) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    cos = s.combined_cos(pct, start, end, 0)
    assert cos(pos) == pytest.approx(
        FASTAI["SchedCos"](*((start, end) if first else (end, 0)), own), rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize("name", [*FASTAI, "SchedPoly"])
def test_a_value_for_each_parameter_group(name):
    start, end = np.array([1e-5, 1e-3]), np.array([1e-3, 2.0])
    power = [3] if name == "SchedPoly" else []
    each = [getattr(s, name)(a, b, *power)(0.3) for a, b in zip(start, end, strict=True)]
    np.testing.assert_allclose(getattr(s, name)(start, end, *power)(0.3), each)


def test_exponential_ends_of_groups_are_checked_too():
    with pytest.raises(UsageError, match="positive ends"):
        s.SchedExp(np.array([1e-5, 0.0]), np.array([1.0, 1.0]))
    assert s.SchedExp(torch.tensor(1.0), np.float64(4))(0.5) == pytest.approx(2)
