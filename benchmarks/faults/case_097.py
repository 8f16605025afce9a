import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Sep(nn.Module):
    def __init__(self, i, o, s=1):
        super().__init__()
        self.dw, self.pw = nn.Conv2d(i, i, 3, s, 1, groups=i, bias=False), nn.Conv2d(i, o, 1, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return F.leaky_relu(self.bn(self.pw(self.dw(x))), 0.2)


def batches(x, y, n):
    for idx in torch.randperm(len(x)).split(n):
        yield x[idx], y[idx]


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    f = lambda k: torch.from_numpy(d[k]).permute(0, 3, 1, 2).float().sub(120).div(63)
    x, xv, y, yv = f('x_train'), f('x_valid'), torch.from_numpy(d['y_train']), torch.from_numpy(d['y_valid'])
    net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.LeakyReLU(0.2), Sep(24, 48), Sep(48, 64, 2), Sep(64, 96, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(6):
        net.train()
        run = None
        for xb, yb in batches(x, y, 64):
            loss = F.cross_entropy(net(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            run = loss.item() if run is None else 0.98 * run + 0.02 * loss.item()
        net.eval()
        with torch.no_grad():
            acc = sum((net(c).argmax(1) == t).sum().item() for c, t in zip(xv.split(250), yv.split(250))) / len(xv)
        print(f'epoch {epoch} running loss {run:.3f} accuracy {acc:.4f}')


if __name__ == '__main__':
    main()
