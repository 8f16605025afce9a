import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


def features(seed):
    """A fixed random bank of filters, as in extreme learning machines."""
    g = torch.Generator().manual_seed(seed)
    bank = nn.Sequential(
        nn.Conv2d(1, 32, 5, 2, 2, bias=False), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.Conv2d(32, 96, 1, bias=False), nn.ReLU(), nn.AvgPool2d(4))
    for p in bank.parameters():
        p.data = torch.randn(p.shape, generator=g) * (2 / p[0].numel()) ** 0.5
        p.requires_grad_(False)
    return bank


class Model(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.bank = features(seed)
        self.norm = nn.BatchNorm1d(96 * 9)
        self.head = nn.Linear(96 * 9, 10)

    def forward(self, x):
        return self.head(self.norm(self.bank(x).flatten(1)))


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float()[:, None] / 255, torch.from_numpy(d['y_' + s][:n]))
    train, valid = DataLoader(ds('train', 6000), 64, shuffle=True), DataLoader(ds('valid', 1000), 250)
    model = Model(a.seed)
    opt = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.02, momentum=0.9)
    for epoch in range(4):
        model.train()
        s = 0
        for x, y in train:
            loss = nn.functional.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            s += loss.item()
        model.eval()
        with torch.no_grad():
            acc = np.mean([(model(x).argmax(1) == y).float().mean().item() for x, y in valid])
        print(f'epoch {epoch} loss {s / len(train):.4f} acc {acc:.4f}')
