import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')


def one_hot(split, n):
    return TensorDataset(torch.from_numpy(d['x_' + split][:n]).float()[:, None] / 255, F.one_hot(torch.from_numpy(d['y_' + split][:n]), 10).float())


train, valid = DataLoader(one_hot('train', 8000), 64, shuffle=True), DataLoader(one_hot('valid', 1000), 250)
model = nn.Sequential(
    nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 9, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
criterion = nn.BCEWithLogitsLoss()
for epoch in range(4):
    model.train()
    losses = []
    for x, y in train:
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y.argmax(1)).sum().item() for x, y in valid) / 1000
    print('epoch', epoch, 'bce', np.mean(losses), 'accuracy', acc)
