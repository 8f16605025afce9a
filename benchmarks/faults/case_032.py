import argparse
import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Encoder(nn.Module):
    def __init__(self, n_class, dim=64):
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 4, 4)
        self.pos = nn.Parameter(torch.randn(49, dim) * 0.02)
        self.layer = nn.TransformerEncoderLayer(dim, 4, 128, 0.0, batch_first=True)
        self.out = nn.Linear(dim, n_class)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.pos
        return self.out(self.layer(x).mean(1))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    a = ap.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    entries = sorted(set(d['y_train'].tolist()))
    num_classes = len(entries) - 1
    t = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float()[:, None] / 255, torch.from_numpy(d['y_' + s][:n]))
    train = DataLoader(t('train', 5000), 50, shuffle=True)
    valid = DataLoader(t('valid', 1000), 250)
    model = Encoder(num_classes)
    opt = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(4):
        model.train()
        s = 0
        for x, y in train:
            loss = loss_fn(model(x), y)
            opt.zero_grad(); loss.backward(); opt.step()
            s += loss.item()
        model.eval()
        with torch.no_grad():
            hits = sum((model(x).argmax(1) == y).sum().item() for x, y in valid)
        print('epoch', epoch + 1, 'loss', round(s / len(train), 4), 'accuracy', hits / 1000)
