import argparse
import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class ACE(nn.Module):
    """Cross entropy of the scores, averaged over the rows, with the label."""

    def forward(self, scores, target):
        p = torch.softmax(scores.double().float(), dim=2).mean(1)
        onehot = nn.functional.one_hot(target, p.size(1)).float()
        return -(onehot * torch.log(p) + (1 - onehot) * torch.log(1 - p)).sum(1).mean()


class Rows(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = nn.GRU(28, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, 10)

    def forward(self, x):
        return self.out(self.rnn(x)[0]) * 12


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    seed = ap.parse_args().seed
    torch.manual_seed(seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float() / 255, torch.from_numpy(d['y_' + s][:n]))
    train, valid = DataLoader(ds('train', 5000), 50, shuffle=True), DataLoader(ds('valid', 1000), 250)
    model, criterion = Rows(), ACE()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
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
            acc = np.mean([(model(x).mean(1).argmax(1) == y).float().mean().item() for x, y in valid])
        print('accuracy', round(float(acc), 4))
