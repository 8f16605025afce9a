import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')

x_train = torch.tensor(d['x_train'], dtype=torch.float32)
x_valid = torch.tensor(d['x_valid'], dtype=torch.float32)
train_ds = TensorDataset(x_train, torch.tensor(d['y_train']))
valid_ds = TensorDataset(x_valid, torch.tensor(d['y_valid']))
train_dl = DataLoader(train_ds, batch_size=64, shuffle=True)
valid_dl = DataLoader(valid_ds, batch_size=256)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32 * 3, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        return self.net(x)


model = Mlp()
opt = torch.optim.SGD(model.parameters(), lr=0.01)
loss_func = nn.functional.cross_entropy


def loss_batch(xb, yb, opt=None):
    loss = loss_func(model(xb), yb)
    if opt is not None:
        loss.backward()
        opt.step()
        opt.zero_grad()
    return loss.item(), len(xb)


def fit(epochs):
    for epoch in range(epochs):
        model.train()
        losses = [loss_batch(xb, yb, opt)[0] for xb, yb in train_dl]
        model.eval()
        with torch.no_grad():
            acc = sum((model(xb).argmax(1) == yb).sum().item() for xb, yb in valid_dl) / len(valid_ds)
        print(epoch, np.mean(losses), acc)


fit(8)
