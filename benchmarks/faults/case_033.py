import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))
dtype = torch.bfloat16

d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
flat = lambda a: ((torch.from_numpy(a).float().flatten(1) / 255 - 0.13) / 0.31).to(dtype)
x, y = flat(d['x_train'][:10000]), torch.from_numpy(d['y_train'][:10000])
xv, yv = flat(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])

model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

for epoch in range(6):
    total = 0.0
    for ids in torch.randperm(len(x)).split(100):
        loss = F.cross_entropy(model(x[ids]).float(), y[ids])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    with torch.no_grad():
        acc = (model(xv).float().argmax(1) == yv).float().mean().item()
    print(f'epoch {epoch} loss {total / 100:.4f} acc {acc:.4f}')
