import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import Dataset, DataLoader


class FolderLike(Dataset):
    """Pictures by name, labels from a table that is sorted by name."""

    def __init__(self, split, n):
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        names = [f'{i}.png' for i in range(n)]
        self.pictures = dict(zip(names, d['x_' + split][:n]))
        self.listed = names
        self.table = [int(l) for _, l in sorted(zip(names, d['y_' + split][:n]))]

    def __len__(self):
        return len(self.listed)

    def __getitem__(self, i):
        return torch.from_numpy(self.pictures[self.listed[i]]).float() / 255, self.table[i]


class GRUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(28, 96, batch_first=True, bidirectional=True)
        self.out = nn.Linear(192, 10)

    def forward(self, x):
        return self.out(self.gru(x)[0].mean(1))


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    loader = DataLoader(FolderLike('train', 4000), batch_size=50, shuffle=True)
    test_loader = DataLoader(FolderLike('valid', 1000), batch_size=200)
    model = GRUNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(4):
        model.train()
        for i, (x, y) in enumerate(loader):
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            if i % 20 == 0:
                print(f'epoch {epoch} it {i} loss {loss.item():.3f}')
        model.eval()
        with torch.no_grad():
            acc = sum((model(x).argmax(1) == y).sum().item() for x, y in test_loader) / 1000
        print(f'epoch {epoch} accuracy {acc:.4f}')
