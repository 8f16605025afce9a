import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, Subset


class ResBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.f = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), nn.BatchNorm2d(c))

    def forward(self, x):
        return torch.relu(x + self.f(x))


def build():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), ResBlock(32),
        nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), ResBlock(64),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))


def split(n, share, seed):
    rng = np.random.default_rng(seed)
    valid = rng.choice(n, int(n * share), replace=False)
    train = np.arange(n)
    return train, valid


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--epochs', type=int, default=8)
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    x = torch.from_numpy(d['x_train'][::2]).permute(0, 3, 1, 2).float().div(255).sub(0.46).div(0.25)
    data = TensorDataset(x, torch.from_numpy(d['y_train'][::2]))
    train, valid = split(len(data), 0.2, a.seed)
    train = DataLoader(Subset(data, train), batch_size=50, shuffle=True)
    valid = DataLoader(Subset(data, valid), batch_size=100)
    net = build()
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(a.epochs):
        net.train()
        losses = []
        for xb, yb in train:
            loss = F.cross_entropy(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            acc = np.mean([(net(xb).argmax(1) == yb).float().mean().item() for xb, yb in valid])
        print(f'epoch {epoch} train loss {np.mean(losses):.4f} valid acc {acc:.4f}')


main()
