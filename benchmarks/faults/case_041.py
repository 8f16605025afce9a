import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Residual(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.a = nn.Conv2d(ch, ch, 3, padding=1)
        self.b = nn.Conv2d(ch, ch, 3, padding=1)

    def forward(self, x):
        return F.relu(x + self.b(F.relu(self.a(x))))


class Net(nn.Module):
    def __init__(self, ch=24):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, ch, 5, stride=2, padding=2), nn.ReLU(), Residual(ch),
            nn.Conv2d(ch, 2 * ch, 3, stride=2, padding=1), nn.ReLU(), Residual(2 * ch),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * ch, 10))

    def forward(self, x):
        return self.net(x)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--lr', type=float, default=0.05)
    p.add_argument('--wd', type=float, default=0.2)
    p.add_argument('--seed', type=int, default=0)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    f = lambda k, n: (torch.from_numpy(d[k][:n]).float()[:, None] / 255 - 0.13) / 0.31
    x, xv = f('x_train', 6000), f('x_valid', 1000)
    y, yv = torch.from_numpy(d['y_train'][:6000]), torch.from_numpy(d['y_valid'][:1000])
    net = Net()
    opt = torch.optim.SGD(net.parameters(), a.lr, momentum=0.9, weight_decay=a.wd)
    for epoch in range(4):
        for n, idx in enumerate(torch.randperm(6000).split(64)):
            loss = F.cross_entropy(net(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            if n % 30 == 0:
                print('epoch', epoch, 'iter', n, 'loss', round(loss.item(), 4))
        with torch.no_grad():
            print('val acc', round((net(xv).argmax(1) == yv).float().mean().item(), 4))


main()
