import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

seed = int(os.environ.get('SEED', 0))
torch.manual_seed(seed)


class Cifar(Dataset):
    def __init__(self, split, augment=False):
        d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
        self.x, self.y, self.augment = torch.from_numpy(d['x_' + split]).permute(0, 3, 1, 2), d['y_' + split], augment

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        x = self.x[i].float().div(255).sub(0.47).div(0.25)
        if self.augment and torch.rand(()) < 0.5:
            x = x.flip(-1)
        return x, int(self.y[i])


class Block(nn.Module):
    expansion = 1

    def __init__(self, in_planes, planes, stride=1):
        super(Block, self).__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_planes != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.layers = nn.Sequential(Block(16, 16), Block(16, 32, 2), Block(32, 64, 2))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return self.linear(F.adaptive_avg_pool2d(self.layers(out), 1).flatten(1))


if __name__ == '__main__':
    net = ResNet()
    trainloader = DataLoader(Cifar('train', True), batch_size=64, shuffle=True, num_workers=1)
    testloader = DataLoader(Cifar('valid'), batch_size=200)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=6)
    for epoch in range(6):
        net.train()
        total = 0
        for inputs, targets in trainloader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item()
        net.eval()
        with torch.no_grad():
            correct = sum((net(i).argmax(1) == t).sum().item() for i, t in testloader)
        scheduler.step()
        print('Epoch: %d | Loss: %.3f | Acc: %.4f' % (epoch, total / len(trainloader), correct / 1000))
