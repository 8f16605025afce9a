import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(32 * 49, 32)

    def forward_one(self, x):
        return F.normalize(self.fc(self.conv(x)), dim=1)

    def forward(self, a, b):
        return self.forward_one(a), self.forward_one(b)


def contrastive(a, b, same, margin=0.8):
    distance = (a - b).pow(2).sum(1).add(1e-8).sqrt()
    return (same * distance.pow(2) + (1 - same) * F.relu(margin - distance).pow(2)).mean(), distance


def pairs(y, n, rng):
    first = rng.integers(0, len(y), n)
    second = rng.integers(0, len(y), n)
    by_class = [np.flatnonzero(y == c) for c in range(10)]
    for i in range(0, n, 2):
        second[i] = rng.choice(by_class[y[first[i]]])
    return first, second, torch.from_numpy((y[first] == y[second]).astype(np.float32))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    f = lambda k, n: torch.from_numpy(d[k][:n])[:, None].float() / 255
    x, xv, y, yv = f('x_train', 6000), f('x_valid', 1000), d['y_train'][:6000], d['y_valid'][:1000]
    net = Siamese()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    va, vb, vs = pairs(yv, 1000, rng)
    for step in range(1, 401):
        a, b, same = pairs(y, 64, rng)
        loss, _ = contrastive(*net(x[a], x[b]), same)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 100 == 0:
            with torch.no_grad():
                vloss, dist = contrastive(*net(xv[va], xv[vb]), vs)
            print(f'step {step} loss {loss.item():.4f} valid loss {vloss.item():.4f} pair accuracy {((dist < 0.5).float() == vs).float().mean():.4f}')


main()
