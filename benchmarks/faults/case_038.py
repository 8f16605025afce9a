import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
STEP = 12
prep = lambda a: (torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255 - 0.46) / 0.25
train = DataLoader(TensorDataset(prep(d['x_train'][::STEP]), torch.from_numpy(d['y_train'][::STEP])), batch_size=32, shuffle=True)
valid = DataLoader(TensorDataset(prep(d['x_valid']), torch.from_numpy(d['y_valid'])), batch_size=250)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 64, 3, 2, 1), nn.Conv2d(64, 96, 3, 2, 1)
        self.f1, self.f2 = nn.Linear(96 * 16, 128), nn.Linear(128, 10)

    def forward(self, x):
        for c in (self.c1, self.c2, self.c3):
            x = F.relu(c(x))
        return self.f2(F.relu(self.f1(x.flatten(1))))


net = Net()
opt = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(30):
    net.train()
    tl = []
    for x, y in train:
        loss = F.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        tl.append(loss.item())
    net.eval()
    vl, hits = 0, 0
    with torch.no_grad():
        for x, y in valid:
            out = net(x)
            vl += F.cross_entropy(out, y).item() / len(valid)
            hits += (out.argmax(1) == y).sum().item()
    print(f'epoch {epoch} train loss {np.mean(tl):.4f} valid loss {vl:.4f} valid acc {hits / 1000:.4f}')
