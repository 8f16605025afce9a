import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
# even, prime, round, more than four, has a straight stroke
table = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [1, 1, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 1],
                  [0, 1, 0, 1, 1], [1, 0, 1, 1, 0], [0, 1, 0, 1, 1], [1, 0, 1, 1, 0], [0, 0, 1, 1, 0]], dtype=np.float32)
ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float() / 255, torch.from_numpy(table[d['y_' + s][:n]]))
train, valid = DataLoader(ds('train', 8000), 64, shuffle=True), DataLoader(ds('valid', 1000), 250)
net = nn.Sequential(
    nn.Conv1d(28, 64, 5, padding=2), nn.BatchNorm1d(64), nn.ReLU(), nn.Conv1d(64, 64, 3, 2, 1), nn.BatchNorm1d(64), nn.ReLU(),
    nn.Conv1d(64, 64, 3, 2, 1), nn.BatchNorm1d(64), nn.ReLU(), nn.Flatten(), nn.Linear(448, 5))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
crit = nn.BCEWithLogitsLoss()
for epoch in range(5):
    net.train()
    s = 0
    for x, y in train:
        loss = crit(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        s += loss.item()
    net.eval()
    with torch.no_grad():
        right = np.mean([((net(x) > 0).float() == y).float().mean().item() for x, y in valid])
    print('epoch', epoch, 'loss', round(s / len(train), 4), 'labels right', round(float(right), 4))
