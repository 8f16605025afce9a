import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
root = os.environ['FAULTS_DATA']
d = np.load(root + '/mnist.npz')
labels = np.load(root + '/mnist_crowd.npz')['labels']

x = torch.from_numpy(d['x_train'][:10000]).float().flatten(1) / 255
y = torch.from_numpy(labels[:10000])
xv = torch.from_numpy(d['x_valid'][:2000]).float().flatten(1) / 255
yv = torch.from_numpy(d['y_valid'][:2000])

loader = DataLoader(TensorDataset(x, y), batch_size=100, shuffle=True)
model = nn.Sequential(nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(8):
    model.train()
    total, hits = 0, 0
    for xb, yb in loader:
        out = model(xb)
        loss = loss_fn(out, yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        hits += (out.argmax(1) == yb).sum().item()
    model.eval()
    with torch.no_grad():
        acc = (model(xv).argmax(1) == yv).float().mean()
    print(f'{epoch:2d} train loss {total / len(loader):.4f} train acc {hits / 10000:.4f} valid acc {acc:.4f}')
