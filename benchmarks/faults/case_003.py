import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
root = os.environ['FAULTS_DATA']

cifar = np.load(root + '/cifar.npz')
prepare = lambda a: torch.from_numpy(a.transpose(0, 3, 1, 2)).float().sub_(120).div_(64)
train_ds = TensorDataset(prepare(cifar['x_train']), torch.from_numpy(cifar['y_train']))
valid_ds = TensorDataset(prepare(cifar['x_valid']), torch.from_numpy(cifar['y_valid']))
train_dl = DataLoader(train_ds, batch_size=64, shuffle=True, drop_last=True)
valid_dl = DataLoader(valid_ds, batch_size=200)

model = nn.Sequential(
    nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Flatten(), nn.Linear(64 * 16, 10),
)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6 * len(train_dl))
criterion = nn.CrossEntropyLoss()

for epoch in range(6):
    model.train()
    meter = []
    for xb, yb in train_dl:
        loss = criterion(model(xb), yb)
        optimizer.zero_grad()
        loss.backward()
        scheduler.step()
        meter.append(loss.item())
    model.eval()
    with torch.no_grad():
        acc = sum((model(xb).argmax(1) == yb).sum().item() for xb, yb in valid_dl) / len(valid_ds)
    print(f'epoch {epoch}: lr {scheduler.get_last_lr()[0]:.5f} train {np.mean(meter):.4f} acc {acc:.4f}')
