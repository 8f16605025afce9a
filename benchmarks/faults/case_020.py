import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class Separable(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        self.seq = nn.Sequential(
            nn.Conv2d(i, i, 3, s, 1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU6(inplace=True),
            nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU6(inplace=True))

    def forward(self, x):
        return self.seq(x)


class Trainer:
    def __init__(self, net, loaders, lr):
        self.net, self.loaders = net, loaders
        self.opt = torch.optim.SGD(net.parameters(), lr, 0.9, nesterov=True, weight_decay=1e-4)

    def pass_over(self, name):
        self.net.train(name == 'train')
        losses, right = [], 0
        with torch.set_grad_enabled(name == 'train'):
            for x, y in self.loaders[name]:
                out = self.net(x)
                loss = F.cross_entropy(out, y)
                if name == 'train':
                    self.opt.zero_grad()
                    loss.backward()
                    self.opt.step()
                losses.append(loss.item())
                right += (out.argmax(1) == y).sum().item()
        return np.mean(losses), right / len(self.loaders[name].dataset)

    def run(self, epochs):
        for epoch in range(epochs):
            print(epoch, *[f'{name} %.4f %.4f' % self.pass_over(name) for name in ('train', 'valid')])


parser = argparse.ArgumentParser()
parser.add_argument('--seed', type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float().sub(120).div(63), torch.from_numpy(d['y_' + s]))
net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), Separable(24, 48, 1), Separable(48, 96, 2), Separable(96, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))
Trainer(net, {'train': DataLoader(t('train'), 64, shuffle=True), 'valid': DataLoader(t('valid'), 250)}, 0.05).run(7)
