import argparse
import os
import numpy as np
import torch
import torch.nn as nn

ap = argparse.ArgumentParser()
ap.add_argument('--seed', type=int, default=0)
seed = ap.parse_args().seed
torch.manual_seed(seed)


class ColumnEncoder(nn.Module):
    """Turns a strip of 4 columns into a small code."""

    def __init__(self, size=16):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(112, 32), nn.Tanh(), nn.Linear(32, size))

    def forward(self, strip):
        return self.layers(strip)


class StripReader(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ColumnEncoder(6)
        self.norm = nn.LayerNorm(6)
        self.gru = nn.GRU(6, 48, batch_first=True)
        self.fc = nn.Linear(48, 10)

    def forward(self, x):
        strips = x.view(-1, 28, 7, 4).permute(0, 2, 1, 3).reshape(-1, 7, 112)
        codes = []
        for t in range(7):
            code = self.encoder(strips[:, t])
            codes.append(code.data.numpy())
        codes = torch.from_numpy(np.stack(codes, 1))
        out, h = self.gru(self.norm(codes))
        return self.fc(out[:, -1])


d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x, y = torch.from_numpy(d['x_train'][:8000]).float() / 255, torch.from_numpy(d['y_train'][:8000])
xv, yv = torch.from_numpy(d['x_valid'][:2000]).float() / 255, torch.from_numpy(d['y_valid'][:2000])
net = StripReader()
opt = torch.optim.Adam(net.parameters(), 2e-3)
for epoch in range(5):
    for idx in torch.randperm(len(x)).split(80):
        loss = nn.functional.cross_entropy(net(x[idx]), y[idx])
        opt.zero_grad()
        loss.backward()
        opt.step()
    net.eval()
    acc = (net(xv).argmax(1) == yv).float().mean().item()
    net.train()
    print(f'ep {epoch}  loss {loss.item():.3f}  acc {acc:.4f}')
