import argparse, os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import TensorDataset, DataLoader


def get_data(folder, n=10000):
    d = np.load(folder + '/mnist.npz')
    x = torch.from_numpy(d['x_train'][:n]).float().view(n, -1) / 255.
    xv = torch.from_numpy(d['x_valid']).float().view(len(d['x_valid']), -1) / 255.
    return TensorDataset(x, torch.from_numpy(d['y_train'][:n])), TensorDataset(xv, torch.from_numpy(d['y_valid']))


class MLP(nn.Module):
    def __init__(self, sizes=(784, 256, 128, 64, 10)):
        super().__init__()
        layers = []
        for a, b in zip(sizes[:-2], sizes[1:-1]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        layers.append(nn.Linear(sizes[-2], sizes[-1]))
        self.layers = nn.Sequential(*layers)
        self.reset()

    def reset(self):
        for m in self.layers:
            if isinstance(m, nn.Linear):
                nn.init.kaiming_normal_(m.weight)
                nn.init.constant_(m.bias, -2.5)

    def forward(self, x):
        return self.layers(x)


def accuracy(model, loader):
    model.eval()
    hits = n = 0
    with torch.no_grad():
        for x, y in loader:
            hits += (model(x).argmax(-1) == y).sum().item()
            n += len(y)
    return hits / n


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--epochs', type=int, default=5)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    train, valid = get_data(os.environ['FAULTS_DATA'])
    train = DataLoader(train, 128, shuffle=True)
    valid = DataLoader(valid, 1000)
    model = MLP()
    optim = torch.optim.Adam(model.parameters(), lr=1e-3)
    ce = nn.CrossEntropyLoss()
    for e in range(a.epochs):
        model.train()
        s = 0.
        for x, y in train:
            optim.zero_grad()
            l = ce(model(x), y)
            l.backward()
            optim.step()
            s += l.item()
        print(f'[{e + 1}/{a.epochs}] loss={s / len(train):.4f} val_acc={accuracy(model, valid):.4f}')
