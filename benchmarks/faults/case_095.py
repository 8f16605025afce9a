import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


def crop(images, top, left, size):
    return images[:, top:top + size, left:left + size]


class Tokens(nn.Module):
    def __init__(self, size, dim=48):
        super().__init__()
        self.size = size
        self.inp = nn.Linear(size, dim)
        self.pos = nn.Parameter(torch.randn(size, dim) * 0.1)
        self.block = nn.TransformerEncoderLayer(dim, 4, 96, 0.0, batch_first=True)
        self.norm = nn.LayerNorm(dim)
        self.cls = nn.Linear(dim, 10)

    def forward(self, x):
        return self.cls(self.norm(self.block(self.inp(x) + self.pos)).mean(1))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--size', type=int, default=20)
    ap.add_argument('--lr', type=float, default=1e-3)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    top = left = (28 - args.size) // 2
    scale = torch.tensor(1 / 255, dtype=torch.float32)
    def ready(split, n):
        x = torch.from_numpy(crop(d['x_' + split][:n], top, left, args.size))
        x = torch.as_tensor(x * int(scale), dtype=torch.float32)
        return TensorDataset(x, torch.from_numpy(d['y_' + split][:n]))
    train, valid = DataLoader(ready('train', 6000), 60, shuffle=True), DataLoader(ready('valid', 1000), 250)
    net = Tokens(args.size)
    opt = torch.optim.Adam(net.parameters(), lr=args.lr)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(4):
        net.train()
        acc_loss = 0
        for x, y in train:
            loss = loss_fn(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            acc_loss += loss.item() / len(train)
        net.eval()
        with torch.no_grad():
            hits = sum((net(x).argmax(1) == y).sum().item() for x, y in valid)
        print('epoch {:d} loss {:.4f} acc {:.4f}'.format(epoch, acc_loss, hits / 1000))
