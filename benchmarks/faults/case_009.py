import argparse
import os
import numpy as np
import torch
import torch.nn as nn


class GRUNet(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.gru = nn.GRU(28, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        return self.head(self.gru(x)[0].mean(1))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    x, y = torch.from_numpy(d['x_train'][:6000]).float() / 255, torch.from_numpy(d['y_train'][:6000])
    xv, yv = torch.from_numpy(d['x_valid'][:1000]).float() / 255, torch.from_numpy(d['y_valid'][:1000])
    net = GRUNet()
    groups = [{'params': net.gru.parameters(), 'lr': 2e-3}, {'params': net.head.parameters(), 'lr': 4e-3}]
    optimizer = torch.optim.AdamW(groups)
    for epoch in range(6):
        if epoch == 4:
            optimizer = torch.optim.AdamW([{'params': net.gru.parameters(), 'lr': 2e-5}, {'params': net.head.parameters(), 'lr': 2e-4}])
        for idx in torch.randperm(len(x)).split(60):
            loss = nn.functional.cross_entropy(net(x[idx]), y[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            print('epoch', epoch, 'loss', round(loss.item(), 4), 'acc', (net(xv).argmax(1) == yv).float().mean().item())


main()
