import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

seed = int(os.environ.get('SEED', 0))
torch.manual_seed(seed)
rng = np.random.default_rng(seed)


def mixup(x, y, alpha=0.4):
    lam = float(rng.beta(alpha, alpha))
    perm = torch.randperm(len(x))
    return lam * x + (1 - lam) * x[perm], y, y[perm], lam


d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float().sub(120).div(63), torch.from_numpy(d['y_' + s]))
train_dl, valid_dl = DataLoader(t('train'), 64, shuffle=True), DataLoader(t('valid'), 250)
net = nn.Sequential(
    nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 96, 3, 2, 1), nn.BatchNorm2d(96), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(96 * 16, 10))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.05)
for epoch in range(7):
    net.train()
    total = 0
    for x, y in train_dl:
        x, a, b, lam = mixup(x, y)
        out = net(x)
        loss = lam * F.cross_entropy(out, a) + (1 - lam) * F.cross_entropy(out, b)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    net.eval()
    with torch.no_grad():
        acc = sum((net(x).argmax(1) == y).sum().item() for x, y in valid_dl) / 1000
    print(f'epoch {epoch} train {total / len(train_dl):.4f} acc {acc:.4f}')
