import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


def slant(images):
    img = images.astype(np.float32) / 255
    grid = np.arange(28, dtype=np.float32)
    total = img.sum((1, 2))
    cx, cy = (img.sum(1) * grid).sum(1) / total, (img.sum(2) * grid).sum(1) / total
    dx, dy = grid[None, None] - cx[:, None, None], grid[None, :, None] - cy[:, None, None]
    return ((img * dx * dy).sum((1, 2)) / (img * dy ** 2).sum((1, 2))).astype(np.float32)


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    torch.manual_seed(ap.parse_args().seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    y, yv = slant(d['x_train'][:10000]), slant(d['x_valid'][:2000])
    mean, std = y.mean(), y.std()
    flat = lambda a: torch.from_numpy(a).float().flatten(1) / 255
    train = DataLoader(TensorDataset(flat(d['x_train'][:10000]), torch.from_numpy((y - mean) / std)[:, None]), 100, shuffle=True)
    xv, tv = flat(d['x_valid'][:2000]), torch.from_numpy((yv - mean) / std)[:, None]
    net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
    opt, mse = torch.optim.Adam(net.parameters(), lr=1e-3), nn.MSELoss()
    for epoch in range(6):
        net.train()
        total = 0
        for x, t in train:
            loss = mse(net(x), t)
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
        net.eval()
        with torch.no_grad():
            print(f'epoch {epoch} mse {total / len(train):.4f} valid mse {mse(net(xv), tv).item():.4f}')
