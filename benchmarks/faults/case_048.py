import os
import random
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

SEED = int(os.environ.get('SEED', 0))
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)


def variants(images, labels, copies=5):
    """Each picture a few times, brighter, darker and with some noise."""
    xs, ys = [], []
    for image, label in zip(images, labels):
        for _ in range(copies):
            v = image / 255 * np.random.uniform(0.9, 1.1) + np.random.normal(0, 0.02, image.shape)
            xs.append(v.astype(np.float32))
            ys.append(label)
    return xs, ys


def save_dataset(xs, ys):
    shuffled = list(zip(xs, ys))
    random.shuffle(shuffled)
    cut = int(len(shuffled) * 0.8)
    pack = lambda part: TensorDataset(torch.from_numpy(np.stack([p[0] for p in part])), torch.tensor([int(p[1]) for p in part]))
    return pack(shuffled[:cut]), pack(shuffled[cut:])


d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
grey = d['x_train'][::5].mean(-1)
train, test = save_dataset(*variants(grey, d['y_train'][::5]))
net = nn.Sequential(
    nn.Conv1d(32, 128, 5, padding=2), nn.BatchNorm1d(128), nn.ReLU(),
    nn.Conv1d(128, 128, 5, stride=2, padding=2), nn.BatchNorm1d(128), nn.ReLU(),
    nn.Flatten(), nn.Linear(128 * 16, 10))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
train_loader, test_loader = DataLoader(train, 64, shuffle=True), DataLoader(test, 250)
for epoch in range(8):
    net.train()
    total = 0
    for x, y in train_loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    net.eval()
    with torch.no_grad():
        acc = sum((net(x).argmax(1) == y).sum().item() for x, y in test_loader) / len(test)
    print('epoch', epoch, 'loss', total / len(train_loader), 'test acc', acc)
