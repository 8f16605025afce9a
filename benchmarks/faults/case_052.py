import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class SignalNet(nn.Module):
    """Reads the picture as one signal of 784 samples."""

    def __init__(self, n_classes=10):
        super().__init__()
        self.c1 = nn.Conv1d(1, 16, 9, stride=4)
        self.c2 = nn.Conv1d(16, 32, 9, stride=4)
        self.c3 = nn.Conv1d(32, 32, 5, stride=2)
        self.fc = nn.Linear(32 * 22, n_classes)

    def forward(self, x):
        x = torch.sigmoid(self.c1(x))
        x = torch.sigmoid(self.c2(x))
        x = torch.sigmoid(self.c3(x))
        return self.fc(x.flatten(1))


def weights_init(m):
    if isinstance(m, nn.Conv1d):
        m.weight.data.normal_(0.0, 12.0)
        m.bias.data.zero_()


def run(seed):
    torch.manual_seed(seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    tr = TensorDataset(torch.from_numpy(d['x_train'][:10000]).float().view(-1, 1, 784) / 255, torch.from_numpy(d['y_train'][:10000]))
    va = TensorDataset(torch.from_numpy(d['x_valid'][:2000]).float().view(-1, 1, 784) / 255, torch.from_numpy(d['y_valid'][:2000]))
    tr, va = DataLoader(tr, batch_size=100, shuffle=True), DataLoader(va, batch_size=500)
    net = SignalNet()
    net.apply(weights_init)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    for epoch in range(5):
        net.train()
        for i, (x, y) in enumerate(tr):
            opt.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            opt.step()
            if i % 50 == 0:
                print(f'{epoch}/{i} loss {loss.item():.4f}')
        net.eval()
        good = 0
        with torch.no_grad():
            for x, y in va:
                good += (net(x).argmax(1) == y).sum().item()
        print(f'epoch {epoch} accuracy {good / 2000:.4f}')


if __name__ == '__main__':
    run(int(os.environ.get('SEED', 0)))
