import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))


def block(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.ReLU())


class Tower(nn.Module):
    def __init__(self, depth=60, width=64):
        super().__init__()
        self.first = block(784, width)
        self.blocks = nn.ModuleList([block(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, 10)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight)

    def forward(self, x):
        x = self.first(x)
        for b in self.blocks:
            x = b(x)
        return self.last(x)


def load(n):
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    f = lambda a: (torch.from_numpy(a).float().flatten(1) / 255 - 0.13) / 0.31
    return f(d['x_train'][:n]), torch.from_numpy(d['y_train'][:n]), f(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])


x, y, xv, yv = load(10000)
model = Tower()
opt = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(3):
    model.train()
    for i, ids in enumerate(torch.randperm(len(x)).split(128)):
        loss = F.cross_entropy(model(x[ids]), y[ids])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if i % 20 == 0:
            print(epoch, i, loss.item())
    model.eval()
    with torch.no_grad():
        print('accuracy', (model(xv).argmax(1) == yv).float().mean().item())
