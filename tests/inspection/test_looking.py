"""Looking changes nothing: every module keeps its mode, and the random numbers go on where they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import TensorDataset

from pellucid import convolution as cv
from pellucid.convolution.summary import summarize
from pellucid.data.loader import DataLoader, DataLoaders
from pellucid.data.sources import StoredImages
from pellucid.inspection.looking import kept_modes, looking
from pellucid.nn.layers import Flatten
from pellucid.seed import set_seed
from pellucid.training.callbacks.progress import ProgressCallback
from pellucid.training.forward import passed
from pellucid.training.interpretation import ClassificationInterpretation
from pellucid.training.learner import Learner

N, BS = 24, 8


def jitter(xb: Tensor) -> Tensor:
    """A random batch transform, that uses all three kinds of random numbers."""
    return xb * (1 + 0.1 * torch.rand(len(xb), 1, 1, 1)) + 0.01 * random.random() + 0.01 * np.random.rand()


def our_loaders() -> DataLoaders:
    pixels = np.random.default_rng(0).integers(0, 255, (2 * N, 1, 8, 8)).astype(np.uint8)
    source, labels = StoredImages(pixels, np.zeros((2 * N, 1, 2), np.int64)), np.arange(2 * N) % 3
    options: dict[str, Any] = {"bs": BS, "batch_tfms": [jitter]}
    train = DataLoader(source, range(N), labels[:N], shuffle=True, training=True, **options)
    return DataLoaders(train, DataLoader(source, range(N, 2 * N), labels[N:], **options), vocab="abc", device="cpu")


def torch_loaders() -> DataLoaders:
    data = TensorDataset(torch.rand(N, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 3)
    own = torch.Generator().manual_seed(5)
    sides = TorchDataLoader(data, BS, shuffle=True, generator=own), TorchDataLoader(data, BS, generator=own)
    return DataLoaders(*sides, vocab="abc", device="cpu")


def network() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Sequential(nn.Conv2d(4, 2, 3, 2), nn.BatchNorm2d(2)), nn.Dropout(0.5), Flatten(), nn.Linear(18, 3)),
    )


def learner(dls: DataLoaders) -> Learner:
    set_seed(0)
    learn = Learner(dls, network())
    learn.remove_cb(ProgressCallback)
    learn.fit(1, 0.01)
    learn.model.train()
    learn.model[1].eval()  # frozen statistics, as for fine-tuning
    learn.model[3][1].eval()
    sum(p.sum() for p in learn.model.parameters()).backward()  # gradients that a user has not stepped with yet
    return learn


def state(learn: Learner) -> list[Any]:
    """All that a look must leave alone, as plain numbers."""
    own = [dl.generator.get_state().tolist() for dl in learn.dls if getattr(dl, "generator", None) is not None]
    tensors = {k: v.tolist() for k, v in learn.model.state_dict().items()}
    name, numbers, *rest = np.random.get_state()
    return [
        random.getstate(),
        (name, numbers.tolist(), *rest),
        torch.get_rng_state().tolist(),
        own,
        {name: m.training for name, m in learn.model.named_modules()},
        tensors,
        [None if p.grad is None else p.grad.tolist() for p in learn.model.parameters()],
        torch.is_grad_enabled(),
    ]


def image(learn: Learner) -> Tensor:
    return torch.linspace(0, 1, 64).reshape(1, 8, 8)


def seen_whole(trace: cv.Trace) -> None:
    assert trace.immediate() and trace.full() and trace.precedents() and trace.dependents()


LOOKS: dict[str, Callable[[Learner], Any]] = {
    "validate": lambda learn: learn.validate(),
    "validate the training set": lambda learn: learn.validate(dl=learn.dls.train),
    "get_preds": lambda learn: learn.get_preds(),
    "show_results": lambda learn: learn.show_results(),
    "summary": lambda learn: learn.summary(),
    "lr_find": lambda learn: learn.lr_find(num_it=10, suggest_funcs=None),
    "one_batch": lambda learn: learn.dls.one_batch(),
    "a loader's one_batch": lambda learn: getattr(learn.dls.train, "one_batch", learn.dls.one_batch)(),
    "show_batch": lambda learn: learn.dls.show_batch(),
    "interpretation": lambda learn: ClassificationInterpretation.from_learner(learn).plot_top_losses(2),
    "summarize": lambda learn: summarize(learn.model, image(learn)[None]),
    "layer_counts": lambda learn: cv.layer_counts(learn.model, (1, 8, 8)),
    "receptive_field": lambda learn: str(cv.receptive_field(learn.model, (1, 8, 8))),
    "as_matrix": lambda learn: cv.as_matrix(learn.model[0], 8).dense(),
    "effective_field": lambda learn: cv.effective_field(learn.model, image(learn)[None], "0"),
    "trace": lambda learn: seen_whole(cv.trace(learn.model, image(learn), 3)),
}


@pytest.mark.parametrize("loaders", [our_loaders, torch_loaders])
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_leaves_modes_random_numbers_and_weights(look, loaders):
    learn = learner(loaders())
    before = state(learn)
    LOOKS[look](learn)
    assert state(learn) == before


def test_a_look_before_training_changes_no_bit_of_it():
    weights = []
    for looks in ([], list(LOOKS.values())):
        set_seed(3)
        learn = Learner(torch_loaders(), network())
        learn.remove_cb(ProgressCallback)
        for look in looks:
            look(learn)
        learn.fit(2, 0.01)
        weights.append(learn.model.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


class Merging(nn.Module):
    """Changes more than a flag with its mode, as adapters do: merged for evaluation, taken apart for training."""

    def __init__(self) -> None:
        super().__init__()
        self.merged = False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        self.merged = not mode
        return self


def test_modules_with_a_train_of_their_own_and_shared_ones():
    shared = Merging()
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared, Merging()), Merging())
    model[2].eval()
    shared.train(False)
    with pytest.raises(ZeroDivisionError), looking(model):
        assert not any(m.training for m in model.modules())
        raise ZeroDivisionError
    assert [m.training for m in (model, model[0], model[1], model[1][1], model[2], shared)] == [
        *[True] * 4,
        False,
        False,
    ]
    assert [m.merged for m in (model[1][1], model[2])] == [False, True]


def test_predictions_are_those_of_evaluation_mode_whatever_the_modes_are():
    learn = learner(torch_loaders())
    with kept_modes(learn.model):
        learn.model.eval()
        expected = torch.cat([learn.model(xb) for xb, _ in learn.dls.valid]).detach()
    assert torch.equal(learn.get_preds(act=lambda pred: pred)[0], expected)


def test_a_look_that_is_given_up_half_way_also_leaves_no_trace():
    learn = learner(torch_loaders())
    before = state(learn)
    outputs = passed(learn.model, learn.dls, learn.dls.valid)
    next(outputs)
    outputs.close()
    assert state(learn) == before
