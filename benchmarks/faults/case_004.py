import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import Dataset, DataLoader


class Rows(Dataset):
    def __init__(self, split, n):
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.x, self.y = d['x_' + split][:n].astype('float32'), d['y_' + split][:n]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(28, 64, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.gru(x)[0][:, -1])


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--workers', type=int, default=0)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    train = DataLoader(Rows('train', 5000), batch_size=64, shuffle=True, num_workers=args.workers)
    valid = DataLoader(Rows('valid', 1000), batch_size=250, num_workers=args.workers)
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    crit = nn.CrossEntropyLoss()
    for epoch in range(5):
        net.train()
        for x, y in train:
            optimizer.zero_grad()
            loss = crit(net(x), y)
            loss.backward()
            optimizer.step()
        net.eval()
        n = 0
        with torch.no_grad():
            for x, y in valid:
                n += (net(x).argmax(1) == y).sum().item()
        print(f'epoch {epoch} loss {loss.item():.4f} acc {n / 1000:.4f}')
