import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
ds = lambda s, n: TensorDataset((torch.from_numpy(d['x_' + s][:n])[:, None].float() - 33.3) / 78.6, torch.from_numpy(d['y_' + s][:n]))
train, valid = DataLoader(ds('train', 20000), 256, shuffle=True, drop_last=True), DataLoader(ds('valid', 2000), 500)


def conv(ni, nf, ks=3, act=True):
    layers = [nn.Conv2d(ni, nf, stride=2, kernel_size=ks, padding=ks // 2)]
    if act:
        layers.append(nn.ReLU())
    layers.append(nn.BatchNorm2d(nf))
    return nn.Sequential(*layers)


model = nn.Sequential(conv(1, 8, ks=5), conv(8, 16), conv(16, 32), conv(32, 64), conv(64, 10, act=False), nn.Flatten())
epochs = 4
opt = torch.optim.SGD(model.parameters(), lr=0.6, momentum=0.9)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.6, total_steps=epochs * len(train))
for epoch in range(epochs):
    model.train()
    for x, y in train:
        loss = F.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in valid) / 2000
    print(f'{epoch}\t{loss.item():.4f}\t{acc:.4f}')
