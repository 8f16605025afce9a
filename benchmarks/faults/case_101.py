import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class PreAct(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, s, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.skip = nn.Conv2d(i, o, 1, s, bias=False) if s > 1 or i != o else None

    def forward(self, x):
        h = F.relu(self.bn1(x))
        s = x if self.skip is None else self.skip(h)
        return s + self.conv2(F.relu(self.bn2(self.conv1(h))))


class PreActNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(PreAct(16, 16, 1), PreAct(16, 32, 2), PreAct(32, 64, 2))
        self.bn, self.fc = nn.BatchNorm2d(64), nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.blocks(self.conv(x)))).mean((2, 3)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--epochs', type=int, default=6)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float().sub(120).div(63), torch.from_numpy(d['y_' + s]))
    train, valid = DataLoader(t('train'), 64, shuffle=True, drop_last=True), DataLoader(t('valid'), 250)
    net = PreActNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 0.1, epochs=args.epochs, steps_per_epoch=len(train))
    crit = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(args.epochs):
        net.train()
        losses = []
        for x, y in train:
            x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
            loss = crit(net(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            acc = sum((net(x).argmax(1) == y).sum().item() for x, y in valid) / 1000
        print(f'epoch {epoch} loss {np.mean(losses):.4f} acc {acc:.4f}')


main()
