import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(24, 48, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(48, 64, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.norm(self.conv3(x)))
        return self.fc(x.mean((2, 3)))


def setup(model, lr):
    parameters = []
    params = {'lr': lr / 10, 'weight_decay': 1e-2, 'params': []}
    for name, param in model.named_parameters():
        if 'norm' in name:
            params['params'].append(param)
    parameters.append(params)
    params = {'lr': lr, 'weight_decay': 1e-2, 'params': []}
    for name, param in model.named_parameters():
        if 'fc' in name:
            params['params'].append(param)
    parameters.append(params)
    params = {'lr': lr, 'weight_decay': 1e-2, 'params': []}
    for name, param in model.named_parameters():
        if 'conv' in name:
            params['params'].append(param)
    return torch.optim.AdamW(parameters)


torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
pre = lambda a: (torch.from_numpy(a).permute(0, 3, 1, 2) / 255 - 0.46) / 0.25
train = DataLoader(TensorDataset(pre(d['x_train']), torch.from_numpy(d['y_train'])), 64, shuffle=True)
valid = DataLoader(TensorDataset(pre(d['x_valid']), torch.from_numpy(d['y_valid'])), 250)
model = Model()
optimizer = setup(model, 3e-3)
for epoch in range(1, 7):
    model.train()
    avg_loss = 0
    for x, y in train:
        loss = F.cross_entropy(model(x), y)
        avg_loss += loss.detach().item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        hits = sum((model(x).argmax(1) == y).sum().item() for x, y in valid)
    print('epoch %d loss %.5f accuracy %.4f' % (epoch, avg_loss / len(train), hits / 1000))
