"""Each trial on a small sick and a small healthy run, its numbers against an independent computation."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pellucid.doctor.trials import battery
from pellucid.doctor.trials.core import TRIALS
from pellucid.doctor.trials.outputs import classes_of
from pellucid.doctor.trials.scales import deviations, rescale
from pellucid.doctor.trials.weighing import confirming, end, progress
from sick import classes, network, specimen


def tried(name, run) -> Any:
    """The outcome of one trial."""
    assert run.why == ""
    (outcome,) = battery.run(run, [name], 600) or [None]
    assert not run.notes, run.notes
    return outcome


def sgd(model, lr=0.1, **more):
    return torch.optim.SGD(model.parameters(), lr=lr, **more)


def test_odds_grow_with_what_was_gained():
    assert progress(np.array([2.0] * 4 + [1.0] * 4)) == 0.5
    assert progress(np.array([2.0, np.inf])) == -1
    assert end(np.array([8, 8, 8, 8, 8, 8, 1.0, 3.0])) == 2
    assert confirming(0.15) == pytest.approx(1)
    assert confirming(0) < 0.2 < 5 < confirming(0.3) < confirming(0.9)


def test_lower_rate():
    model = network()
    high = tried("lower-rate", specimen(model, classes(), optimizer=sgd(model, 30.0)))
    assert high.odds["learning-rate-too-high"] > 5
    model = network()
    low = tried("lower-rate", specimen(model, classes(), optimizer=sgd(model, 1e-6), steps=8))
    assert low.odds["learning-rate-too-high"] < 0.3
    assert "no better at 0.1×" in low.rules_out["learning-rate-too-high"]
    model = network()
    well = tried("lower-rate", specimen(model, classes(), optimizer=sgd(model, 0.3), steps=20))
    assert max(well.odds.values()) < 0.3 and set(well.curves) == {"×0.1", "×1"}


def test_higher_rate():
    model = network()
    low = tried("higher-rate", specimen(model, classes(), optimizer=sgd(model, 1e-6), steps=8))
    assert low.odds["learning-rate-too-low"] > 5
    model = network()
    high = tried("higher-rate", specimen(model, classes(), optimizer=sgd(model, 30.0)))
    assert high.odds["learning-rate-too-low"] < 1
    model = network()
    well = tried("higher-rate", specimen(model, classes(), optimizer=sgd(model, 0.3), steps=20))
    assert max(well.odds.values()) < 0.3 and set(well.curves) == {"×1", "×10", "×100"}


def test_a_lower_rate_after_a_spike():
    model = network()
    run = specimen(model, classes(), optimizer=sgd(model, 0.3), steps=5)
    with torch.no_grad():
        for p in run.model.parameters():
            p.mul_(40)
    outcome = tried("lower-rate", run)
    assert "×0.1 from here" in outcome.curves
    assert outcome.odds["learning-rate-too-high"] >= 4


def test_a_few_small_steps_against_a_long_run():
    """What a run at a high rate did not reach in hundreds of steps, some small steps do, if by little."""
    long = {}
    for step in (10, 1000):
        run = specimen(network(), classes())
        run.train[-1].step, run.achieved, run.most_steps = step, 0.01, 12
        model = network()
        run.recipes = specimen(model, classes(), optimizer=sgd(model, 8.0)).recipes
        long[step] = tried("lower-rate", run)
    gained = long[10].numbers["loss at ×1"] - long[10].numbers["loss at ×0.1"]
    assert gained > 0
    assert long[1000].odds["learning-rate-too-high"] >= 6


@pytest.mark.parametrize("apart", [False, True])
def test_few_steps_that_only_learn_their_batches_by_heart_say_less(apart):
    """The run's own model is asked about items that neither was trained on: there it may be the better one."""
    model, valid = network(), classes(n=3, seed=0 if not apart else 7)
    run = specimen(model, classes(), optimizer=sgd(model, 8.0), valid=valid)
    with torch.no_grad():  # the run's model gives every class the same chance
        for p in run.model.parameters():
            p.mul_(1e-6)
    run.train[-1].step, run.achieved = 1000, 0.81
    outcome = tried("lower-rate", run)
    ahead = outcome.numbers["better on validation by"]
    assert (ahead > 0) == (not apart)  # centres of other places: what was learnt is wrong there
    assert outcome.odds["learning-rate-too-high"] == pytest.approx(3.0 if ahead < -0.1 else 20.0 if ahead > 0 else 6.0)


def test_clipped():
    far, model = [(x, 10 + 3 * x[:, :3]) for x, _ in classes()], network()
    sick = tried("clipped", specimen(model, far, F.mse_loss, optimizer=sgd(model, 0.1)))
    well_model = network()
    well = tried("clipped", specimen(well_model, classes(), optimizer=sgd(well_model, 0.3)))
    assert well.odds["exploding-gradients"] < 0.3 < sick.odds["exploding-gradients"]


def test_clipping_that_turns_infinity_into_a_descent():
    """However far above a constant answer it still is after so few steps."""
    far, model = [(x, 1e3 * x[:, :3]) for x, _ in classes()], network()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(30)
    outcome = tried("clipped", specimen(model, far, F.mse_loss, optimizer=sgd(model, 0.3)))
    assert np.isinf(outcome.numbers["as it was"]) and outcome.numbers["clipped"] > 0
    falls = outcome.numbers["clipped"] < 0.5 * outcome.curves["clipped"][0]
    assert falls == (outcome.odds["exploding-gradients"] == 10.0)


def test_fresh_gradients():
    model = network()
    outcome = tried("fresh-gradients", specimen(model, classes(), optimizer=sgd(model, 0.5)))
    assert outcome.numbers["accumulated"] > outcome.numbers["zeroed"]
    model, total = network(), None
    batches = classes()
    expected = []
    for step in range(60):
        x, y = batches[step % 4]
        loss = F.cross_entropy(model(x), y)
        expected.append(loss.item())
        grads = torch.autograd.grad(loss, list(model.parameters()))
        total = grads if total is None else [a + b for a, b in zip(total, grads, strict=True)]
        with torch.no_grad():
            for p, g in zip(model.parameters(), total, strict=True):
                p -= 0.5 * g
    np.testing.assert_allclose(outcome.curves["as it was"], expected, rtol=1e-3)


def test_optimizer_holds_all():
    model = network()
    run = specimen(model, classes(), optimizer=torch.optim.SGD(model[0].parameters(), lr=0.1))
    outcome = tried("optimizer-holds-all", run)
    assert outcome.numbers["left out"] == ["2.weight", "2.bias"]
    assert outcome.numbers["with all"] < outcome.numbers["as it was"]
    model = network()
    model[2].requires_grad_(False)
    assert (
        tried("optimizer-holds-all", specimen(model, classes(), optimizer=torch.optim.SGD(model[0].parameters())))
        is None
    )
    assert tried("optimizer-holds-all", specimen(network(), classes())) is None


def test_without_decay():
    model = network()
    sick = tried("without-decay", specimen(model, classes(), optimizer=sgd(model, 0.1, weight_decay=5.0)))
    assert sick.odds["weight-decay-too-high"] > 5
    model = network()
    well = tried("without-decay", specimen(model, classes(), optimizer=sgd(model, 0.1, weight_decay=1e-4)))
    assert well.odds["weight-decay-too-high"] < 0.3
    assert tried("without-decay", specimen(network(), classes())) is None


def test_some_steps_without_decay_against_a_long_run_with_it():
    """A run that got more than half of the way, and was kept from the rest."""
    model = network()
    run = specimen(model, classes(), optimizer=sgd(model, 0.1, weight_decay=0.3))
    run.achieved, odds = 0.55, {}
    for step in (10, 1000):
        run.train[-1].step = step
        odds[step] = tried("without-decay", run).odds["weight-decay-too-high"]
    assert odds[10] <= 1 and odds[1000] == 6


@pytest.mark.parametrize("where", ["module", "function", "outside"])
def test_without_softmax(where):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = network()

        def forward(self, x):
            return F.softmax(self.body(x), dim=1)

    forward = lambda model, x: model(x)
    model = {"module": lambda: network(nn.Softmax(dim=1)), "function": Functional, "outside": network}[where]()
    if where == "outside":
        forward = lambda model, x: torch.softmax(model(x), -1)
    outcome = tried("without-softmax", specimen(model, classes(), optimizer=sgd(model), forward=forward))
    assert outcome.odds["softmax-before-cross-entropy"] > 5
    assert outcome.numbers["module"] == {"module": "3", "function": "", "outside": None}[where]
    assert str(outcome.numbers["where"]).startswith("test_trials.py")
    plain = network()
    batches = classes()
    opt = sgd(plain)
    for step in range(60):
        x, y = batches[step % 4]
        loss = F.cross_entropy(plain(x), y)
        assert outcome.curves["without softmax"][step] == pytest.approx(loss.item(), rel=1e-4)
        opt.zero_grad()
        loss.backward()
        opt.step()


@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (network(), F.cross_entropy),
        (network(nn.LogSoftmax(dim=1)), F.nll_loss),
        (network(nn.LogSoftmax(dim=1)), F.cross_entropy),
        (network(nn.Softmax(dim=1)), lambda out, y: F.nll_loss(out.log(), y)),
        (network(nn.Sigmoid()), lambda out, y: F.binary_cross_entropy(out, F.one_hot(y, 3).float())),
        (network(), lambda out, y: F.relu(1 - out.gather(1, y[:, None])).mean()),
    ],
)
def test_what_a_loss_wants_before_it_stays(model, loss):
    for name in ("without-softmax", "without-output-activation"):
        assert tried(name, specimen(model, classes(), loss)) is None


def test_without_output_activation():
    outcome = tried("without-output-activation", specimen(network(nn.ReLU()), classes()))
    assert outcome.numbers["function"] == "relu"
    assert outcome.numbers["module"] == "3"
    assert outcome.odds["activation-on-output"] >= 0.7  # under cross-entropy it is wrong also where it costs little
    far = [(x, 10 + 3 * x[:, :3]) for x, _ in classes()]
    model = network(nn.Tanh())
    sick = tried("without-output-activation", specimen(model, far, F.mse_loss, optimizer=sgd(model, 0.01)))
    assert sick.odds["activation-on-output"] > 5
    near = [(x, x[:, :3].sigmoid()) for x, _ in classes()]
    well = tried("without-output-activation", specimen(network(nn.Sigmoid()), near, F.mse_loss))
    assert well.odds["activation-on-output"] <= 0.3


def test_equal_shapes():
    numbers = [(x, x[:, 0] + 0.5 * x[:, 1]) for x, _ in classes()]
    model = network(k=1)
    with pytest.warns(UserWarning, match="different to the input size"):
        run = specimen(model, numbers, F.mse_loss, optimizer=sgd(model, 0.05))
    sick = tried("equal-shapes", run)
    assert sick.odds["broadcast-in-loss"] > 5
    assert sick.numbers["target"] == [32] and sick.numbers["output"] == [32, 1]
    model = network(k=1)
    by_hand = specimen(model, numbers, lambda out, y: ((out - y) ** 2).mean(), optimizer=sgd(model, 0.05))
    assert tried("equal-shapes", by_hand).odds["broadcast-in-loss"] > 5
    column = [(x, y[:, None]) for x, y in numbers]
    assert tried("equal-shapes", specimen(network(k=1), column, F.mse_loss)) is None
    assert tried("equal-shapes", specimen(network(), classes())) is None


def test_fitting_loss():
    far = classes(k=6, seed=1)
    model = network(k=6)
    run = specimen(
        model, far, lambda out, y: F.mse_loss(out, 0.01 * F.one_hot(y, 6).float() * 100), optimizer=sgd(model, 0.01)
    )
    outcome = tried("fitting-loss", run)
    assert outcome.numbers["cross-entropy"] > outcome.numbers["as it was"]
    well = network()
    bce = lambda out, y: F.binary_cross_entropy_with_logits(out, F.one_hot(y, 3).float())
    assert tried("fitting-loss", specimen(well, classes(), bce, optimizer=sgd(well, 0.5))).odds["wrong-loss"] < 1
    assert tried("fitting-loss", specimen(network(), classes())) is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (torch.tensor([0, 2]), [0, 2]),
        (torch.tensor([[0.0], [2.0]]), [0, 2]),
        (torch.eye(3), [0, 1, 2]),
        (torch.tensor([0.5, 1.0]), None),
        (torch.tensor([0, 3]), None),
        (torch.full((2, 3), 0.5), None),
    ],
)
def test_classes_of_labels(labels, classes):
    found = classes_of(labels, 3)
    assert (None if found is None else found.tolist()) == classes


def deep(scale, n=6, act: type[nn.Module] = nn.ReLU):
    torch.manual_seed(0)
    layers = [layer for _ in range(n) for layer in (nn.Linear(8, 8), act())]
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    return model


def test_rescaled_layers_have_unit_deviation_and_the_same_function_shape():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64 * 9, 3)
    )
    x = torch.randn(8, 1, 14, 14)
    run = specimen(model, [(x, torch.randint(3, (8,)))])
    scaled: Any = run.copy()
    rescale(scaled, run.train[0])
    hidden = x.double()
    for layer in scaled.double().requires_grad_(False):
        out = layer(hidden)
        if hasattr(layer, "weight"):
            bias = layer.bias.reshape(1, -1, *[1] * (out.dim() - 2))
            assert float((out - bias).std()) == pytest.approx(1, rel=1e-3)
        hidden = out
    assert list(deviations(run.copy(), run.train[0])) == ["0", "2", "4"]


def test_initial_scale():
    small, large, well = deep(0.1), deep(6.0), network()
    sick = tried("initial-scale", specimen(small, classes(), optimizer=sgd(small, 0.05)))
    assert sick.odds["initial-scale-too-small"] > 5 > 1 > sick.odds["initial-scale-too-large"]
    sick = tried("initial-scale", specimen(large, classes(), optimizer=sgd(large, 0.05)))
    assert sick.odds["initial-scale-too-large"] > 5 > 1 > sick.odds["initial-scale-too-small"]
    healthy = tried("initial-scale", specimen(well, classes(), optimizer=sgd(well, 0.3)))
    assert max(healthy.odds.values()) <= 1


def test_smaller_weights_free_saturated_units():
    torch.manual_seed(0)
    ends = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3))
    with torch.no_grad():
        for p in ends[2].parameters():
            p.mul_(60)
        ends[0].weight.mul_(20)
    run = specimen(ends, classes(), optimizer=sgd(ends, 0.003), steps=200)
    assert tried("initial-scale", run).odds["saturated-units"] > 1


def test_gradient_flow():
    model = deep(1.0, n=8, act=nn.Sigmoid)
    run = specimen(model, classes())
    outcome = tried("gradient-flow", run)
    assert outcome.odds["vanishing-gradients"] == 10
    x, y = classes()[0]
    outputs = [x.double()]
    for layer in model.double():
        outputs.append(layer(outputs[-1]))
    first, last = outputs[1], outputs[-1]
    a, b = torch.autograd.grad(F.cross_entropy(last, y), [first, last])
    assert outcome.numbers["first over last"] == pytest.approx(float(a.norm() / b.norm()), rel=1e-4)
    shrinking = tried("gradient-flow", specimen(deep(0.3, n=8), classes()))
    assert shrinking.odds["vanishing-gradients"] < shrinking.odds["initial-scale-too-small"]
    well = tried("gradient-flow", specimen(deep(2.0, n=3), classes()))
    assert max(well.odds.values()) <= 1


def through_time(gain):
    class Rows(nn.Module):
        """A plain recurrent network over 20 steps, its recurrent weights the identity times a gain."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.head = nn.RNN(1, 16, nonlinearity="relu", batch_first=True), nn.Linear(16, 3)
            with torch.no_grad():
                self.rnn.weight_hh_l0.copy_(gain * torch.eye(16))

        def forward(self, x):
            return self.head(self.rnn(x.repeat(1, 3)[:, :20, None])[0][:, -1])

    return Rows()


def test_gradient_flow_through_time():
    outcome = tried("gradient-flow", specimen(through_time(2.0), classes()))
    assert outcome.odds["exploding-gradients"] == 10 and "first time step of rnn" in outcome.says
    # relu passes on what is positive, and the recurrent weights double it in each of the 19 steps between
    assert 2**17 < outcome.numbers["first over last time step"]["rnn"] < 2**20
    assert tried("gradient-flow", specimen(through_time(1.0), classes())) is None


def test_gradient_flow_through_a_cell_written_by_hand():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.given, self.again, self.out = nn.Linear(8, 4), nn.Linear(4, 4, bias=False), nn.Linear(4, 3)
            with torch.no_grad():
                self.again.weight.copy_(2 * torch.eye(4))

        def forward(self, x):
            state = torch.ones(len(x), 4)
            for _ in range(20):
                state = F.relu(self.given(x).abs() + self.again(state))
            return self.out(state)

    outcome = tried("gradient-flow", specimen(Cell(), classes()))
    assert outcome.odds["exploding-gradients"] == 10
    assert outcome.numbers["first over last time step"]["again"] == pytest.approx(2**19, rel=1e-3)


def test_normalised_input():
    raw = [(100 + 50 * x, y) for x, y in classes()]
    model = network()
    sick = tried("normalised-input", specimen(model, raw, optimizer=sgd(model)))
    assert sick.odds["inputs-not-normalised"] > 5
    every = torch.cat([x for x, _ in raw])
    assert sick.numbers["mean"] == pytest.approx(float(every.mean()), rel=1e-5)
    small = network()
    with torch.no_grad():
        small[0].weight.mul_(0.01)  # a slow run, which large inputs make faster
    faster = tried("normalised-input", specimen(small, raw, optimizer=sgd(small, 0.001)))
    assert faster.numbers["as it was"] < faster.numbers["normalised"]
    assert faster.odds["inputs-not-normalised"] >= 0.3
    normalised = [((x - every.mean()) / every.std(), y) for x, y in raw]
    assert tried("normalised-input", specimen(network(), normalised)).odds["inputs-not-normalised"] == 0.05
    with_norm = nn.Sequential(nn.BatchNorm1d(8), network())
    assert (
        tried("normalised-input", specimen(with_norm, raw, optimizer=sgd(with_norm))).odds["inputs-not-normalised"]
        < 0.3
    )


def test_with_batchnorm():
    model = deep(0.3)
    outcome = tried("with-batchnorm", specimen(model, classes(), optimizer=sgd(model)))
    assert outcome.numbers["with batchnorm"] < outcome.numbers["as it was"]
    assert outcome.odds["initial-scale-too-small"] == 2
    assert tried("with-batchnorm", specimen(network(nn.BatchNorm1d(3)), classes())) is None


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return self.body(x - 0.1 * x.mean(0))


def test_image_mixing():
    sick = tried("image-mixing", specimen(Mixing(), classes()))
    assert sick.odds["batch-mixing"] == 100
    well = tried("image-mixing", specimen(network(nn.BatchNorm1d(3), nn.Dropout()), classes()))
    assert well.odds["batch-mixing"] == 0.01
    assert well.numbers["share of others"] == 0


def test_norm_modes():
    tiny = [(x, y) for x, y in classes(n=8, size=2)]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
    run = specimen(model, tiny, optimizer=sgd(model), steps=40)
    outcome = tried("norm-modes", run)
    assert outcome.numbers["values per channel"] == 2
    # the running statistics are right on average: no proof that those of two values were
    assert outcome.odds["batchnorm-batch-too-small"] > 0.8 or outcome.numbers["eval"] > outcome.numbers["train"]
    expected = [
        np.mean([float(F.cross_entropy(model.train(mode)(x), y).detach()) for x, y in tiny]) for mode in (False, True)
    ]
    assert outcome.numbers["eval"] == pytest.approx(expected[0], rel=1e-4)
    assert outcome.numbers["train"] == pytest.approx(expected[1], rel=1e-4)
    assert tried("norm-modes", specimen(network(), classes())) is None


def test_norms_left_in_evaluation_mode():
    torch.manual_seed(0)
    raw = [(10 * x + 30, y) for x, y in classes()]
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    outcome = tried("norm-modes", specimen(model, raw, optimizer=sgd(model)))
    assert outcome.numbers["norms in evaluation mode"] == 1
    assert outcome.odds["model-left-in-eval-mode"] > 5


def test_one_batch():
    model = network(hidden=64)
    well = tried("one-batch", specimen(model, classes()))
    assert well.odds["softmax-before-cross-entropy"] < 0.1
    assert well.rules_out["broken-graph"] == "one batch can be learnt"
    blind = [(torch.zeros_like(x), y) for x, y in classes()]
    sick = tried("one-batch", specimen(network(), blind))
    assert sick.odds["constant-input"] > 1 > sick.odds["labels-random"]
    hurried = specimen(network(hidden=64), classes())
    hurried.most_steps = 4
    early = tried("one-batch", hurried)
    assert 0.1 < progress(early.curves["one batch"]) < 0.5
    assert early.odds == {}  # ten steps that are on the way say nothing


def test_capacity():
    model = network()
    outcome = tried("capacity", specimen(model, classes(), optimizer=sgd(model, 1e-3), steps=4))
    assert outcome.odds["underfitting"] == 2
    assert outcome.numbers["still falling"]


def test_capacity_of_a_model_that_is_too_small():
    x = torch.randn(4, 32, 2, generator=torch.Generator().manual_seed(0))
    quadrants = list(zip(x, (x > 0).long() @ torch.tensor([2, 1]), strict=True))
    torch.manual_seed(0)
    line = nn.Sequential(nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 4))  # what four quadrants have no room on
    adam = torch.optim.Adam(line.parameters(), 0.02)
    before = tried("capacity", specimen(line, quadrants, optimizer=adam))
    assert before.severity == {} and before.odds["underfitting"] <= 2
    after = tried("capacity", specimen(line, quadrants, optimizer=adam, steps=800))
    assert after.severity == {"underfitting": "warning"} and after.odds["underfitting"] == 3


def test_shuffled_labels():
    batches = classes(n=8)
    well = tried("shuffled-labels", specimen(network(hidden=64), batches, valid=classes(n=2, seed=0)))
    assert well.odds["labels-random"] < 0.1
    assert well.numbers["right"] > 0.6 > well.numbers["right shuffled"]
    g = torch.Generator().manual_seed(5)
    random = [(x, torch.randint(3, (32,), generator=g)) for x, _ in batches]
    sick = tried("shuffled-labels", specimen(network(hidden=64), random))
    assert sick.odds["labels-random"] >= 1
    # Of an epoch before: held-back items that were trained on are known by heart, whatever their labels.
    repeated = [*random[:7], (torch.cat([random[0][0][:16], random[7][0][:16]]), random[0][1])]
    partly = tried("shuffled-labels", specimen(network(hidden=64), repeated))
    assert partly.numbers["items"] == 48
    assert partly.odds["labels-random"] >= 1
    assert tried("shuffled-labels", specimen(network(hidden=64), [*random[:6], *random[:2]])) is None


def test_every_trial_says_so_in_a_sentence():
    model = network(nn.BatchNorm1d(3))
    run = specimen(model, classes(), optimizer=sgd(model, weight_decay=0.01), steps=2)
    run.most_steps = 4
    for outcome in battery.run(run, list(TRIALS), 600):
        assert 20 < len(outcome.says) < 250
        assert all(0 < factor < 200 for factor in outcome.odds.values())
        assert "nan" not in outcome.says
