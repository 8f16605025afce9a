import argparse
import os
import numpy as np
import torch
from torch import nn

ap = argparse.ArgumentParser()
ap.add_argument('--seed', default=0, type=int)
ap.add_argument('--hidden', default=64, type=int)
opts = ap.parse_args()
torch.manual_seed(opts.seed)


class RowReader(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gru = nn.GRU(28, hidden, batch_first=True)
        self.classify = nn.Linear(hidden, 10)
        self.init_weights()

    def init_weights(self):
        for name, p in self.named_parameters():
            if 'weight' in name:
                nn.init.constant_(p, 0.05)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        _, h = self.gru(x)
        return self.classify(h[0])


d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x, y = torch.from_numpy(d['x_train'][:6000] / np.float32(255)), torch.from_numpy(d['y_train'][:6000])
xv, yv = torch.from_numpy(d['x_valid'][:1000] / np.float32(255)), torch.from_numpy(d['y_valid'][:1000])

model = RowReader(opts.hidden)
adam = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(4):
    tot = 0
    for idx in torch.randperm(6000).split(50):
        adam.zero_grad()
        loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
        loss.backward()
        adam.step()
        tot += loss.item()
    with torch.no_grad():
        acc = (model(xv).argmax(1) == yv).float().mean().item()
    print(f'{epoch} {tot / 120:.4f} {acc:.4f}')
