import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

seed = int(os.environ.get('SEED', 0))
torch.manual_seed(seed)
rng = np.random.RandomState(seed)


def shuffle_and_split(images, labels, n_valid):
    rng.shuffle(images)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(labels)
    order = torch.from_numpy(rng.permutation(len(x)))
    x, y = x[order], y[order]
    x = (x - x.mean()) / x.std()
    return TensorDataset(x[n_valid:], y[n_valid:]), TensorDataset(x[:n_valid], y[:n_valid])


d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
train, valid = shuffle_and_split(d['x_train'], d['y_train'], 1000)
net = nn.Sequential(
    nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(),
    nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Conv2d(64, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(),
    nn.Flatten(), nn.Linear(1024, 10))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
crit = nn.CrossEntropyLoss()
for epoch in range(5):
    net.train()
    s = 0
    for xb, yb in DataLoader(train, batch_size=64, shuffle=True):
        opt.zero_grad()
        loss = crit(net(xb), yb)
        loss.backward()
        opt.step()
        s += loss.item() * len(xb) / len(train)
    net.eval()
    with torch.no_grad():
        out = [(net(xb), yb) for xb, yb in DataLoader(valid, batch_size=250)]
    print('epoch %d train %.4f valid %.4f acc %.4f' % (
        epoch, s, np.mean([crit(o, t).item() for o, t in out]), np.mean([(o.argmax(1) == t).float().mean().item() for o, t in out])))
