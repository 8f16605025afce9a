import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
f = lambda a: torch.from_numpy(a)[:, None].float() / 255
x, y = f(d['x_train'][:12000]), torch.from_numpy(d['y_train'][:12000])
xv, yv = f(d['x_valid'][:2000]), torch.from_numpy(d['y_valid'][:2000])
inverted = lambda t: 1 - 0.8 * t

net = nn.Sequential(
    nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, 10))


def accuracy(t, y):
    with torch.no_grad():
        return (net(t).argmax(1) == y).float().mean().item()


def run(x, y, epochs, lr):
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    for epoch in range(epochs):
        for idx in torch.randperm(len(x)).split(100):
            loss = F.cross_entropy(net(x[idx]), y[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print('lr', lr, 'epoch', epoch, 'loss', round(loss.item(), 4))


print('pretraining')
run(x, y, 2, 1e-3)
print('clean accuracy', accuracy(xv, yv))
print('fine-tuning on noisy scans')
noisy = x[:4000] + 0.2 * torch.randn(4000, 1, 28, 28)
run(noisy, y[:4000], 4, 5e-5)
print('accuracy on noisy scans', accuracy(xv + 0.2 * torch.randn_like(xv), yv))
