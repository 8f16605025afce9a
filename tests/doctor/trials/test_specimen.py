"""A specimen is a copy: whatever is done to it, the live run goes on as if nothing had been."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid
from pellucid.doctor.trials import battery
from pellucid.doctor.trials import specimen as specimens
from pellucid.doctor.trials.core import TRIALS, Outcome
from pellucid.doctor.trials.optimizers import Recipe
from pellucid.doctor.trials.specimen import OutOfTime, Specimen, copied, weights_of
from sick import classes, network, specimen


def noisy():
    return network(nn.BatchNorm1d(3), nn.Dropout(0.2))


@pytest.mark.filterwarnings("ignore::UserWarning")  # the watch has nothing to see
def test_all_trials_leave_the_live_run_as_it_was():
    model: Any = noisy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = classes()
    run = specimen(model, batches, optimizer=optimizer, steps=5)
    assert run.why == ""
    run.most_steps = 4
    weights, state = weights_of(model), {p: {k: v.clone() for k, v in s.items()} for p, s in optimizer.state.items()}
    grads = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    random_states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)
    with pellucid.watch(model, optimizer, loss=True) as seen, torch.no_grad():
        outcomes = battery.run(run, list(TRIALS), 600)
        assert not torch.is_grad_enabled()
    assert {"lower-rate", "higher-rate", "one-batch", "norm-modes", "image-mixing"} <= {
        outcome.trial for outcome in outcomes
    }
    assert all(outcome.seconds > 0 for outcome in outcomes)
    assert seen.step == 0 and seen.history.train.steps.size == 0
    assert all(torch.equal(a, b) for a, b in zip(weights.values(), weights_of(model).values(), strict=True))
    assert all(torch.equal(state[p][k], v) for p, s in optimizer.state.items() for k, v in s.items())
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))
    assert [m.training for m in model.modules()] == modes
    assert [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups] == settings
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert random_states[1] == random.getstate()
    assert str(random_states[2]) == str(np.random.get_state(legacy=False))


def test_a_descent_of_a_copy_is_the_run_itself():
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.AdamW(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=2),
    ):
        model, batches = network(), classes()
        optimizer: Any = make(model.parameters())
        run = specimen(model, batches, optimizer=optimizer)
        losses = run.descend(run.copy(), 5)
        expected = []
        for step in range(5):
            x, y = batches[step % 4]

            def closure(x=x, y=y, model=model, optimizer=optimizer):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            expected.append(float(optimizer.step(closure).detach()))
        assert losses.tolist() == expected


def test_a_recipe_keeps_groups_highest_rates_and_state():
    model = network()
    optimizer = torch.optim.Adam(
        [{"params": model[0].parameters(), "lr": 1e-4}, {"params": [*model[2].parameters(), torch.zeros(3)]}], lr=1e-2
    )
    recipe = Recipe.of(optimizer, model)
    F.cross_entropy(model(torch.randn(4, 8)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 3e-3
    recipe.see(optimizer, model, with_state=True)
    optimizer.param_groups[0]["lr"] = 1e-9
    recipe.see(optimizer, model)
    copy = copied(model)
    made = recipe.make(copy, rate=10, with_state=True, betas=(0.5, 0.9), nonsense=3)
    assert type(made) is torch.optim.Adam
    assert [group["lr"] for group in made.param_groups] == pytest.approx([3e-2, 1e-1])
    assert made.param_groups[1]["betas"] == (0.5, 0.9)
    assert "nonsense" not in made.param_groups[0]
    assert [len(group["params"]) for group in made.param_groups] == [2, 2]
    for ours, theirs in zip(copy.parameters(), model.parameters(), strict=True):
        assert torch.equal(made.state[ours]["exp_avg"], optimizer.state[theirs]["exp_avg"])
        assert made.state[ours]["exp_avg"] is not optimizer.state[theirs]["exp_avg"]


def test_stored_features_do_not_hinder_a_copy():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            self.features = [self.layer(x)]
            return self.features[0].sum()

    model: Any = Keeping()
    model(torch.ones(1, 2)).backward()
    twin: Any = copied(model)
    assert torch.equal(twin.features[0], model.features[0])
    assert twin.features[0].grad_fn is None
    assert twin.layer.weight.grad is None


def test_a_model_too_large_or_beyond_copying_says_so(monkeypatch):
    model: Any = network()
    model.handle = (each for each in ())  # a generator cannot be copied
    run = specimen(model, classes())
    assert "cannot be copied" in run.why
    assert battery.run(run, ["lower-rate"], 5) == []
    assert run.notes == [f"nothing was tried: {run.why}"]
    monkeypatch.setattr(specimens, "_free", lambda device: 100.0)
    assert "too large: 7 copies" in specimen(network(), classes()).why


class Drifting(nn.Linear):
    calls = 0

    def forward(self, input):
        self.calls += 1
        return super().forward(input) * self.calls


def test_a_batch_that_does_not_give_its_loss_again_is_not_used():
    run = specimen(Drifting(8, 3), classes())
    assert run.train == []
    assert "instead of" in run.why


def test_time_is_kept(monkeypatch):
    run = specimen(network(), classes())
    assert run.steps(2) == 60
    run.step_s, run.deadline = 0.5, specimens.time.perf_counter() + 30
    assert run.steps(2) == 20  # a third of the time would be ten
    assert run.steps(1) == 20
    with pytest.raises(OutOfTime):
        run.steps(10)
    monkeypatch.setitem(TRIALS, "slow", lambda s: Outcome("slow", str(s.steps(1, fewest=10**9))))
    monkeypatch.setitem(TRIALS, "broken", lambda s: 1 / 0)
    run.step_s = 1e-3
    assert battery.run(run, ["slow", "broken"], 5) == []
    assert run.notes == [
        "the trial broken failed: ZeroDivisionError: division by zero",
        "no time was left for some trials (budget 5 s): slow",
    ]
    assert (battery.budget_s(1), battery.budget_s(200), battery.budget_s(1e6)) == (5, 20, 60)


def test_a_trial_that_turns_out_too_slow_stops_in_time(monkeypatch):
    now = 0.0
    monkeypatch.setattr(specimens.time, "perf_counter", lambda: now)
    run, steps = specimen(network(), classes()), 0

    def slow(batch: Any, model: nn.Module) -> torch.Tensor:
        nonlocal now, steps
        now, steps = now + 1.0, steps + 1
        return batch.replay(model)[0]

    run.step_s, run.deadline = 0.1, 10.0
    with pytest.raises(OutOfTime):
        run.descend(run.copy(), run.steps(1), loss=slow)
    assert steps == 11  # of 20 that were to take two seconds, with the second of grace
    now = 11.1
    with pytest.raises(OutOfTime):
        run.loss(present=True)


def test_a_specimen_of_nothing():
    assert Specimen.of(network(), []).why == "no training pass was captured"
