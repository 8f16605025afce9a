import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')


def pos_neg(split, n_pos):
    """Birds against everything else."""
    y = d['y_' + split]
    pos, neg = np.flatnonzero(y == 2)[:n_pos], np.flatnonzero(y != 2)
    idx = np.concatenate([neg, pos])
    x = torch.from_numpy(d['x_' + split][idx]).permute(0, 3, 1, 2).float()
    return TensorDataset((x - 120) / 63, torch.from_numpy((y[idx] == 2).astype(np.int64)))


train, valid = pos_neg('train', 60), pos_neg('valid', 100)
weights = None
train_loader = DataLoader(train, batch_size=64, shuffle=True)
valid_loader = DataLoader(valid, batch_size=200)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 2))
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
criterion = nn.CrossEntropyLoss(weight=weights)
for epoch in range(5):
    net.train()
    total = 0
    for x, y in train_loader:
        loss = criterion(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    net.eval()
    with torch.no_grad():
        pred = torch.cat([net(x).argmax(1) for x, _ in valid_loader])
    truth = valid.tensors[1]
    acc = (pred == truth).float().mean().item()
    recall = (pred[truth == 1] == 1).float().mean().item()
    print(f'epoch {epoch} loss {total / len(train_loader):.4f} accuracy {acc:.4f} recall {recall:.4f}')
