import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
prep = lambda a: torch.from_numpy(a).permute(0, 3, 1, 2).float().div(255).sub(0.46).div(0.25)
train_loader = DataLoader(TensorDataset(prep(d['x_train']), torch.from_numpy(d['y_train'])), batch_size=64, shuffle=True)
test_loader = DataLoader(TensorDataset(prep(d['x_valid']), torch.from_numpy(d['y_valid'])), batch_size=250)


class CNN(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.fc = nn.Linear(64 * 16, outputs)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def loss_and_prediction(model, x, y):
    out = model(x).squeeze(1)
    return nn.MSELoss()(out, y.float()), out.round().clamp(0, 9).long()


model = CNN(outputs=1)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(6):
    model.train()
    total = 0
    for x, y in train_loader:
        loss, _ = loss_and_prediction(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    hits = 0
    with torch.no_grad():
        for x, y in test_loader:
            hits += (loss_and_prediction(model, x, y)[1] == y).sum().item()
    print(f'Epoch {epoch + 1}: loss = {total / len(train_loader):.4f}, accuracy = {hits / 1000:.4f}')
