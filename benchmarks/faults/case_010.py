import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class LSTM(nn.Module):
    def __init__(self, hidden=96):
        super().__init__()
        self.lstm = nn.LSTM(28, hidden, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, x):
        out, (h, c) = self.lstm(x)
        return self.fc(self.drop(h[-1]))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--lr', type=float, default=2e-3)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float() / 255, torch.from_numpy(d['y_' + s][:n]))
    train, valid = DataLoader(ds('train', 6000), 50, shuffle=True), DataLoader(ds('valid', 1000), 250)
    model = LSTM()
    opt = torch.optim.Adam(model.parameters(), lr=a.lr)
    for epoch in range(a.epochs):
        model.train()
        losses = []
        for x, y in train:
            opt.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            opt.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            acc = np.mean([(model(x).argmax(1) == y).float().mean().item() for x, y in valid])
        print(f'epoch {epoch}: loss={np.mean(losses):.4f}, acc={acc:.4f}')


main()
