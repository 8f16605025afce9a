import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float().sub(120).div(63), torch.from_numpy(d['y_' + s]))
train_dl, valid_dl = DataLoader(t('train'), batch_size=50, shuffle=True), DataLoader(t('valid'), batch_size=250)

width = 2
model = nn.Sequential(
    nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.1),
    nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.1),
    nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(0.1),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
criterion = nn.CrossEntropyLoss()
for epoch in range(8):
    model.train()
    losses = []
    for x, y in train_dl:
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
    model.eval()
    with torch.no_grad():
        hits = sum((model(x).argmax(1) == y).sum().item() for x, y in valid_dl)
    print(f'epoch {epoch + 1}/8 train loss {np.mean(losses):.4f} acc {hits / 1000:.4f}')
