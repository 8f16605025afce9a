import os
import sys
import numpy as np
import torch
import torch.nn as nn

seed = int(sys.argv[sys.argv.index('--seed') + 1]) if '--seed' in sys.argv else 0
torch.manual_seed(seed)

f = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
Xtr = torch.FloatTensor(f['x_train'][:12000].reshape(-1, 784) / 255.0)
Xte = torch.FloatTensor(f['x_valid'].reshape(-1, 784) / 255.0)
Ytr, Yte = torch.LongTensor(f['y_train'][:12000]), torch.LongTensor(f['y_valid'])


class Network(nn.Module):
    def __init__(self):
        super(Network, self).__init__()
        self.l1 = nn.Linear(784, 200)
        self.l2 = nn.Linear(200, 200)
        self.l3 = nn.Linear(200, 100)
        self.out = nn.Linear(100, 10)
        self.act = nn.Tanh()
        for layer in (self.l1, self.l2, self.l3):
            nn.init.normal_(layer.weight, mean=0, std=1.5)

    def forward(self, x):
        x = self.act(self.l1(x))
        x = self.act(self.l2(x))
        x = self.act(self.l3(x))
        return self.out(x)


net = Network()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
batch = 100

for epoch in range(6):
    idx = torch.randperm(Xtr.size(0))
    epoch_loss = 0
    for b in range(0, Xtr.size(0), batch):
        xb, yb = Xtr[idx[b:b + batch]], Ytr[idx[b:b + batch]]
        optimizer.zero_grad()
        loss = criterion(net(xb), yb)
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item() * len(xb)
    with torch.no_grad():
        pred = net(Xte).max(1)[1]
    print('Epoch %d, loss %.4f, test accuracy %.4f' % (epoch, epoch_loss / len(Xtr), (pred == Yte).float().mean()))
