import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb = nn.Linear(28, dim)
        self.pos = nn.Parameter(torch.randn(28, dim) * 0.02)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, 128, 0.0, batch_first=True, norm_first=True), 2, enable_nested_tensor=False)
        self.out = nn.Linear(dim, 10)

    def forward(self, x):
        return self.out(self.enc(self.emb(x) + self.pos).mean(1))


ap = argparse.ArgumentParser()
ap.add_argument('--seed', type=int, default=0)
ap.add_argument('--micro', type=int, default=25)
ap.add_argument('--batch', type=int, default=100)
args = ap.parse_args()
torch.manual_seed(args.seed)
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x, y = torch.from_numpy(d['x_train'][:6000]).float() / 255, torch.from_numpy(d['y_train'][:6000])
xv, yv = torch.from_numpy(d['x_valid'][:1000]).float() / 255, torch.from_numpy(d['y_valid'][:1000])
net = Net()
opt = torch.optim.AdamW(net.parameters(), lr=2e-3)
for epoch in range(5):
    for idx in torch.randperm(6000).split(args.batch):
        total = 0
        for part in idx.split(args.micro):
            loss = F.cross_entropy(net(x[part]), y[part], reduction='sum') / len(idx)
            loss.backward()
            total += loss.item()
        opt.step()
        opt.zero_grad()
    with torch.no_grad():
        print(f'{epoch} {total:.4f} {(net(xv).argmax(1) == yv).float().mean():.4f}')
