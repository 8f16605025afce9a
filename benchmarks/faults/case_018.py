import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class ConvNet1d(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(96, width, 3, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv1d(width, width, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(width * 8, 10))

    def forward(self, x):
        return self.net(x)


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
        self.crit = nn.CrossEntropyLoss()
        self.history = {'loss': [], 'val_loss': [], 'val_acc': []}

    def fit(self, train, valid, epochs):
        for epoch in range(epochs):
            self.model.train()
            total = 0.0
            for x, y in train:
                self.opt.zero_grad()
                loss = self.crit(self.model(x), y)
                loss.backward()
                self.opt.step()
                total += loss.item()
            self.history['loss'].append(total / len(train))
            self.validate(valid)
            print(' - '.join([f'epoch {epoch + 1}'] + [f'{k}: {v[-1]:.4f}' for k, v in self.history.items()]))

    @torch.no_grad()
    def validate(self, valid):
        self.model.eval()
        outs = [(self.model(x), y) for x, y in valid]
        self.history['val_loss'].append(float(np.mean([self.crit(o, y).item() for o, y in outs])))
        self.history['val_acc'].append(float(np.mean([(o.argmax(1) == y).float().mean().item() for o, y in outs])))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--every', type=int, default=10)
    ap.add_argument('--epochs', type=int, default=30)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    # three colours of a row beside each other
    rows = lambda a: torch.from_numpy(a).permute(0, 3, 1, 2).reshape(len(a), 96, 32).float() / 127.5 - 1
    train = TensorDataset(rows(d['x_train'][::args.every]), torch.from_numpy(d['y_train'][::args.every]))
    valid = TensorDataset(rows(d['x_valid']), torch.from_numpy(d['y_valid']))
    Trainer(ConvNet1d(), 1e-3).fit(DataLoader(train, 50, shuffle=True), DataLoader(valid, 250), args.epochs)
