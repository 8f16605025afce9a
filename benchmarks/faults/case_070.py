import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler


def long_tail(y, first, factor, rng):
    """Fewer and fewer pictures of each next class."""
    keep = []
    for c in range(10):
        ids = np.flatnonzero(y == c)
        keep.append(rng.permutation(ids)[:max(int(first * factor ** c), 6)])
    return np.concatenate(keep)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        w = [16, 32, 64]
        self.stem = nn.Conv2d(1, w[0], 3, 2, 1)
        self.layers = nn.ModuleList()
        for a, b in zip(w, w[1:]):
            self.layers.append(nn.Sequential(nn.Conv2d(a, a, 3, 2, 1, groups=a), nn.Conv2d(a, b, 1), nn.BatchNorm2d(b), nn.ReLU()))
        self.fc = nn.Linear(w[-1], 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = layer(x)
        return self.fc(x.mean((2, 3)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--epochs', type=int, default=5)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    y = d['y_train']
    keep = long_tail(y, 5000, 0.33, rng)
    f = lambda im: (torch.from_numpy(im).float()[:, None] - 33) / 79
    data = TensorDataset(f(d['x_train'][keep]), torch.from_numpy(y[keep]))
    loader = DataLoader(data, batch_size=64, shuffle=True)
    xv, yv = f(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])
    net = Net()
    opt = torch.optim.Adam(net.parameters(), lr=5e-4)
    for epoch in range(a.epochs):
        net.train()
        for xb, yb in loader:
            loss = F.cross_entropy(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
        net.eval()
        with torch.no_grad():
            pred = net(xv).argmax(1)
        per_class = [(pred[yv == c] == c).float().mean().item() for c in range(10)]
        print('epoch', epoch, 'loss', round(loss.item(), 4), 'mean recall', round(float(np.mean(per_class)), 4))


main()
