import os
import numpy as np
import torch
import torch.nn as nn
import torch.utils.data as data

seed = int(os.environ.get('SEED', 0))
torch.manual_seed(seed)
np.random.seed(seed)


class Digits(data.Dataset):
    def __init__(self, split, n):
        f = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.x, self.y = f[f'x_{split}'][:n], f[f'y_{split}'][:n]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]).float() / 255, self.y[i]


class Transformer(nn.Module):
    def __init__(self, d_model=48):
        super().__init__()
        self.inp = nn.Linear(28, d_model)
        self.pos = nn.Parameter(0.02 * torch.randn(28, d_model))
        layer = nn.TransformerEncoderLayer(d_model, 4, 96, dropout=0.3, batch_first=True)
        self.enc = nn.TransformerEncoder(layer, 2)
        self.drop = nn.Dropout(0.5)
        self.cls = nn.Linear(d_model, 10)

    def forward(self, x):
        return self.cls(self.drop(self.enc(self.inp(x) + self.pos).mean(1)))


def val(net, loader):
    accuracy, total = 0.0, 0.0
    for x, y in loader:
        with torch.no_grad():
            out = net(x)
            accuracy += (out.argmax(1) == y).sum().item()
            total += len(y)
    return accuracy / total


def train(net, opt, criterion, loader, epochs, val_loader):
    for e in range(1, epochs + 1):
        net.train()
        avg = 0.0
        for x, y in loader:
            opt.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            opt.step()
            avg += loss.item() / len(loader)
        print('epoch', e, 'loss', round(avg, 4), 'val', round(val(net, val_loader), 4))


net = Transformer()
train(net, torch.optim.AdamW(net.parameters(), 1e-3), nn.CrossEntropyLoss(),
      data.DataLoader(Digits('train', 3000), batch_size=50, shuffle=True), 5, data.DataLoader(Digits('valid', 1000), batch_size=50))
