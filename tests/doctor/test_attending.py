"""Which model of a script is found, and that everything is seen from its very first pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import Net, batches, data, fit, net
from torch import nn

from pellucid.doctor.evidence.attending import attend

pytestmark = pytest.mark.usefixtures("all_is_gone")


def sgd(*models, lr=0.05):
    return torch.optim.SGD([p for m in models for p in m.parameters()], lr=lr)


def test_everything_is_seen_from_the_first_pass():
    model = net()
    initial = {k: v.clone() for k, v in model.state_dict().items()}
    with attend() as attended:
        losses = fit(model, sgd(model), 5)
    h, e = attended.history, attended.evidence()
    assert h is not None and attended.watch is not None
    assert [layer.name for layer in h.layers] == ["conv1", "norm", "conv2", "act", "head"]
    assert h.train.steps.tolist() == [[i, i + 1] for i in range(5)] and (h.train.count > 0).all()
    np.testing.assert_allclose(h.loss, losses, rtol=1e-6)
    np.testing.assert_allclose(e.losses, losses, rtol=1e-6)
    assert h.params == [name for name, _ in model.named_parameters()]
    kept = attended.gathering.captures.initial
    assert kept.keys() == initial.keys()
    assert all(torch.equal(kept[k], v) for k, v in initial.items())


def test_a_specimen_for_trials():
    model = net()
    with attend() as attended:
        losses = fit(model, sgd(model), 3)
    specimen = attended.specimen()
    assert specimen is not None and not specimen.why and [batch.step for batch in specimen.train] == [0, 1, 2]
    assert [batch.loss for batch in specimen.train] == pytest.approx(losses)
    assert [recipe.kind for recipe in specimen.recipes] == [torch.optim.SGD]
    initial = net().state_dict()
    assert all(torch.equal(x, initial[name]) for name, x in specimen.copy().named_parameters())


def test_a_script_that_trains_nothing():
    with attend() as attended:
        with torch.no_grad():
            net()(data()[0])
        nn.ReLU()(torch.ones(3))
    e = attended.evidence()
    assert attended.history is None and (e.models, e.model, e.failure) == (0, "", None)


def test_passes_before_training_are_not_it():
    model = net()
    with attend() as attended:
        model.eval()
        with torch.no_grad():
            model(data()[0])
        model.train()
        fit(model, sgd(model), 3)
    e = attended.evidence()
    assert (e.loop.steps, e.train.batch_sizes.tolist()) == (3, [16] * 3)


class Half(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def forward(self, x):
        return torch.relu(self.linear(x.flatten(1)))


@pytest.mark.parametrize("held", ["apart", "in a module"])
def test_an_encoder_and_a_decoder(held):
    encoder, decoder = Half(64, 8), Half(8, 64)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

    both = Both() if held == "in a module" else None
    optimizer = sgd(encoder, decoder)
    with attend() as attended:
        for x, _ in batches(4):
            optimizer.zero_grad()
            F.mse_loss(decoder(encoder(x)), x.flatten(1)).backward()
            optimizer.step()
    h, e = attended.history, attended.evidence()
    prefix = ("encoder", "decoder") if both is not None else ("0", "1")
    assert h is not None and [layer.name for layer in h.layers] == [f"{each}.linear" for each in prefix]
    assert (e.models, e.loop.steps, e.loop.passes, e.loop.backwards) == (2, 4, 4, 4)
    assert e.train.shape == (1, 8, 8) and e.train.batch_sizes.tolist() == [16] * 4
    assert h.train.steps.tolist() == [[i, i + 1] for i in range(4)]
    specimen = attended.specimen()
    assert specimen is not None and not specimen.why and [batch.step for batch in specimen.train] == [1, 2]
    assert all(np.isfinite(p.asked).all() and p.held == 0 for p in e.parameters)


def test_a_generator_and_its_critic():
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh())
    critic = nn.Sequential(nn.Linear(64, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    ours, theirs = torch.optim.Adam(generator.parameters()), torch.optim.Adam(critic.parameters())
    bce, expected = nn.BCEWithLogitsLoss(), []
    with attend() as attended:
        for x, _ in batches(5):
            theirs.zero_grad()
            ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
            fake = generator(torch.randn(16, 4))
            bce(critic(x.flatten(1)), ones).backward()
            bce(critic(fake.detach()), zeros).backward()
            theirs.step()
            ours.zero_grad()
            loss = bce(critic(fake), ones)
            expected.append(loss.item())
            loss.backward()
            ours.step()
    e = attended.evidence()
    assert e.models == 2 and [p.name for p in e.parameters] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert (e.loop.steps, e.loop.backwards, e.loop.passes) == (5, 5, 5)
    np.testing.assert_allclose(e.losses, expected, rtol=1e-6)
    assert set(e.loop.left_before_backward) == {0}
    assert [(o.kind, o.steps, o.foreign) for o in e.optimizers] == [("Adam", 5, 0)]


def test_siamese_calls():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = sgd(model)
    with attend() as attended:
        for x, _ in batches(4):
            optimizer.zero_grad()
            F.cosine_embedding_loss(model(x), model(x.flip(0)), torch.ones(16)).backward()
            optimizer.step()
    e = attended.evidence()
    assert (e.loop.steps, e.loop.backwards, e.loop.passes) == (4, 4, 8)
    assert e.train.batch_sizes.tolist() == [16] * 8 and e.valid.batch_sizes.size == 0


def test_forward_is_called_and_not_the_model():
    model = net()
    optimizer = sgd(model)
    with attend() as attended:
        for x, y in batches(4):
            optimizer.zero_grad()
            F.cross_entropy(model.forward(x), y).backward()
            optimizer.step()
    h, e = attended.history, attended.evidence()
    assert h is not None and [layer.name for layer in h.layers] == ["conv1", "norm", "conv2", "act", "head"]
    assert (e.model, e.loop.steps, e.loop.passes) == ("Net", 4, 4)
    assert e.train.shape == (1, 8, 8) and e.train_labels.sequence.size == 64


def test_closures_and_several_backwards():
    model = net().eval()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    with attend() as attended:
        for x, y in batches(2):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    e = attended.evidence()
    assert e.loop.steps == 2 and (e.loop.backwards_per_step >= 3).all()
    assert e.loop.backwards == e.loop.backwards_per_step.sum() and set(e.loop.left_before_backward) == {0}


def test_a_model_whose_loss_is_inside():
    class Inside(Net):
        def forward(self, x, labels=None):
            logits = super().forward(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    model = Inside()
    optimizer = sgd(model)
    with attend() as attended:
        for x, y in batches(3):
            optimizer.zero_grad()
            model(x=x, labels=y)["loss"].backward()
            optimizer.step()
    e = attended.evidence()
    assert (e.loop.backwards, e.train.shape, e.train_labels.width) == (3, (1, 8, 8), 3)
    assert e.train_labels.sequence.tolist() == [c for _, y in batches(3) for c in y.tolist()]


def test_lazy_models():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attend() as attended:
        fit(model, optimizer, 3)
    e = attended.evidence()
    assert e.loop.steps == 3 and e.parameters[0].shape == (8, 64)
    assert attended.gathering.captures.initial["1.weight"].shape == (8, 64)


def test_two_trainings_one_after_the_other():
    with attend() as attended:
        for seed in 0, 1:
            model = net(seed)
            fit(model, sgd(model), 4)
    e = attended.evidence()
    assert (e.models, e.loop.steps, e.loop.passes) == (2, 4, 4)


def test_the_first_loss_fails():
    model = Net(classes=2)
    with pytest.raises(IndexError), attend() as attended:
        fit(model, sgd(model))
    e = attended.evidence()
    assert e.failure is not None and (e.failure.kind, e.failure.during) == ("IndexError", "loss")
    assert (e.train_labels.width, e.train_labels.sequence.max(), e.train.batch_sizes.tolist()) == (2, 2, [16])


def test_the_script_fails_before_it_trains():
    with pytest.raises(ValueError, match="early"), attend() as attended:
        raise ValueError("early")
    failure = attended.evidence().failure
    assert failure is not None and (failure.kind, failure.message) == ("ValueError", "early")
    assert "test_attending.py:" in failure.where
    with pytest.raises(SystemExit), attend() as attended:
        raise SystemExit(0)
    assert attended.evidence().failure is None
