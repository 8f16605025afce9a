import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Patches(nn.Module):
    def __init__(self, dim=64, depth=2):
        super().__init__()
        self.conv = nn.Conv2d(3, dim, 8, 8)
        self.pos = nn.Parameter(torch.randn(16, dim) * .02)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, 128, 0.0, batch_first=True, norm_first=True), depth, enable_nested_tensor=False)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        return self.head(self.enc(self.conv(x).flatten(2).mT + self.pos).mean(1))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--epochs', type=int, default=1)
    ap.add_argument('--lr', type=float, default=1e-3)
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    to = lambda k: (torch.from_numpy(d[k]).permute(0, 3, 1, 2).float() - 121) / 63
    x, y, xv, yv = to('x_train'), torch.from_numpy(d['y_train']), to('x_valid'), torch.from_numpy(d['y_valid'])
    net = Patches()
    opt = torch.optim.AdamW(net.parameters(), lr=a.lr)
    for epoch in range(a.epochs):
        net.train()
        for i, idx in enumerate(torch.randperm(len(x)).split(50)):
            loss = F.cross_entropy(net(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            if i % 20 == 0:
                print(f'epoch {epoch} step {i} loss {loss.item():.4f}')
    net.eval()
    with torch.no_grad():
        acc = np.mean([(net(b).argmax(1) == t).float().mean().item() for b, t in zip(xv.split(250), yv.split(250))])
    print('accuracy', round(float(acc), 4))


main()
