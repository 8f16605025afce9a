"""Small runs, sick and healthy, captured as a watch captures them."""

import copy

import torch
from torch import nn
from torch.nn import functional as F

from pellucid.doctor.trials.optimizers import Recipe
from pellucid.doctor.trials.specimen import Specimen, weights_of
from pellucid.doctor.trials.tape import Tape


def classes(n=4, size=32, width=8, k=3, seed=0):
    """Batches of points around k centres, with their class."""
    g = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(k, width, generator=g)
    batches = []
    for _ in range(n):
        y = torch.randint(k, (size,), generator=g)
        batches.append((centres[y] + torch.randn(size, width, generator=g), y))
    return batches


def network(*more, width=8, hidden=16, k=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, k), *more)


def specimen(
    model,
    batches,
    loss=F.cross_entropy,
    *,
    optimizer=None,
    steps=0,
    valid=(),
    forward=lambda model, x: model(x),
):
    """Capture a pass on each batch, train on for some steps with the live model, and take a specimen of it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if optimizer is None else optimizer
    initial, recipe, tape = weights_of(model), Recipe.of(optimizer, model), Tape(model)
    train = []
    for x, y in batches:
        tape.begin((x,))
        train.append(tape.finish(loss(forward(model, x), y)))
    held = []
    training = model.training
    model.eval()
    for x, y in valid:
        tape.begin((x,))
        with torch.no_grad():
            loss(forward(model, x), y)
        held.append(tape.finish())
    model.train(training)
    put_back(model, initial)
    for step in range(steps):
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        loss(forward(model, x), y).backward()
        optimizer.step()
        recipe.see(optimizer, model, with_state=True)
    return Specimen.of(model, train, held, recipes=[recipe], initial=initial)


def put_back(model, weights):
    with torch.no_grad():
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            t.copy_(weights[name])


def copy_of(model):
    return copy.deepcopy(model)
