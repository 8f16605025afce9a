import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))

    def forward(self, x):
        return self.head(self.body(x))


def make_loaders():
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    t = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n])[:, None].float() / 255, torch.from_numpy(d['y_' + s][:n]))
    return {'train': DataLoader(t('train', 6000), 64, shuffle=True), 'valid': DataLoader(t('valid', 2000), 64)}


def run_phase(phase, net, loader, optimizer, loss_fn):
    net.train()
    losses, hits, n = [], 0, 0
    for images, targets in loader:
        if phase == 'train':
            out = net(images)
            loss = loss_fn(out, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        else:
            with torch.no_grad():
                out = net(images)
                loss = loss_fn(out, targets)
        losses.append(loss.item())
        hits += (out.argmax(1) == targets).sum().item()
        n += len(targets)
    return np.mean(losses), hits / n


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
loaders = make_loaders()
for epoch in range(4):
    for phase in ('train', 'valid'):
        loss, acc = run_phase(phase, net, loaders[phase], optimizer, nn.CrossEntropyLoss())
        print(f'{epoch} {phase}: loss {loss:.4f}, accuracy {acc:.4f}')
