import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
norm_layer = nn.BatchNorm2d


class Block(nn.Module):
    def __init__(self, i, o, s=1):
        super().__init__()
        self.conv1, self.n1 = nn.Conv2d(i, o, 3, s, 1, bias=False), norm_layer(o)
        self.conv2, self.n2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), norm_layer(o)
        self.down = nn.Conv2d(i, o, 1, s) if s > 1 else nn.Identity()

    def forward(self, x):
        y = F.relu(self.n1(self.conv1(x)))
        return F.relu(self.n2(self.conv2(y)) + self.down(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 5, 4, 2)
        self.body = nn.Sequential(Block(16, 16), Block(16, 32, 2), Block(32, 32), Block(32, 64, 2))
        self.pool_norm = nn.BatchNorm1d(64) if norm_layer is nn.BatchNorm2d else nn.LayerNorm(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.pool_norm(self.body(F.relu(self.stem(x))).mean((2, 3))))


d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
ds = lambda s, n: TensorDataset((torch.from_numpy(d['x_' + s][:n]).float()[:, None] - 33) / 79, torch.from_numpy(d['y_' + s][:n]))
train_loader = DataLoader(ds('train', 2000), batch_size=2, shuffle=True)
valid_loader = DataLoader(ds('valid', 1000), batch_size=100)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.003, momentum=0.9)
running = 0
for ite, (x, y) in enumerate(train_loader, 1):
    net.train()
    optimizer.zero_grad()
    loss = F.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    running += loss.item()
    if ite % 200 == 0:
        print('[ite %d] train loss: %3f' % (ite, running / 200))
        running = 0
net.eval()
with torch.no_grad():
    acc = sum((net(x).argmax(1) == y).sum().item() for x, y in valid_loader) / 1000
print('accuracy', acc)
