import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float().sub(120).div(63), torch.from_numpy(d['y_' + s]))
train_loader = DataLoader(t('train'), batch_size=16, shuffle=True, drop_last=True)
valid_loader = DataLoader(t('valid'), batch_size=250)
accumulation_steps = 4

model = nn.Sequential(
    nn.Conv2d(3, 24, 3, 2, 1), nn.GroupNorm(4, 24), nn.ReLU(), nn.Conv2d(24, 48, 3, 2, 1), nn.GroupNorm(4, 48), nn.ReLU(),
    nn.Conv2d(48, 64, 3, 2, 1), nn.GroupNorm(4, 64), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
criterion = nn.CrossEntropyLoss()
model.zero_grad()
for epoch in range(6):
    model.train()
    for i, (inputs, labels) in enumerate(train_loader):
        loss = criterion(model(inputs), labels)
        loss = loss / accumulation_steps
        loss.backward()
        if (i + 1) % accumulation_steps == 0:
            optimizer.step()
            model.zero_grad()
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in valid_loader) / 1000
    print('epoch', epoch, 'loss', loss.item() * accumulation_steps, 'acc', acc)
