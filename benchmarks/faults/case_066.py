import os
import numpy as np
import torch
from torch import nn

torch.manual_seed(int(os.environ.get('SEED', 3)))
NUM_CLASSES = 100

d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
keep = np.flatnonzero(np.isin(d['y_train'][:20000], (1, 4, 7)))[:5000]
keep_v = np.flatnonzero(np.isin(d['y_valid'], (1, 4, 7)))[:1000]
names = {1: 0, 4: 1, 7: 2}
xt = torch.from_numpy(d['x_train'][keep])[:, None] / 255
xv = torch.from_numpy(d['x_valid'][keep_v])[:, None] / 255
yt = torch.tensor([names[int(i)] for i in d['y_train'][keep]])
yv = torch.tensor([names[int(i)] for i in d['y_valid'][keep_v]])

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(),
    nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Conv2d(16, 32, 1), nn.ReLU(),
    nn.Conv2d(32, 32, 3, 2, 1, groups=32), nn.Conv2d(32, 32, 1), nn.ReLU(),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, NUM_CLASSES))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
total, seen = 0.0, 0
for epoch in range(4):
    for part in torch.randperm(len(xt)).split(50):
        loss = criterion(model(xt[part]), yt[part])
        opt.zero_grad()
        loss.backward()
        opt.step()
        total, seen = total + loss.item(), seen + 1
    with torch.no_grad():
        acc = (model(xv).argmax(1) == yv).float().mean().item()
    print(f'epoch {epoch} acc {acc:.4f} mean loss so far {total / seen:.4f}')
