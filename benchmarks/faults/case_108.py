import argparse
import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    """The rows of a digit as a sequence, each brought to the same loudness."""

    def __init__(self, split, n):
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.x, self.y = torch.from_numpy(d['x_' + split][:n]).float(), torch.from_numpy(d['y_' + split][:n])

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        rows = self.x[i]
        rows = rows - rows.mean(1, keepdim=True)
        return rows / rows.std(1, keepdim=True), self.y[i]


class Net(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = nn.GRU(28, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 10)

    def forward(self, x):
        return self.out(self.rnn(x)[0].mean(1))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    torch.manual_seed(ap.parse_args().seed)
    train, valid = DataLoader(Rows('train', 4000), 50, shuffle=True), DataLoader(Rows('valid', 1000), 250)
    model, criterion = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    for epoch in range(4):
        model.train()
        for i, (x, y) in enumerate(train):
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if i % 25 == 0:
                print(f'epoch {epoch} batch {i} loss {loss.item():.4f}')
        model.eval()
        with torch.no_grad():
            acc = np.mean([(model(x).argmax(1) == y).float().mean().item() for x, y in valid])
        print('accuracy', round(float(acc), 4))
