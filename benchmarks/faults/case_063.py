import os
import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional as F

torch.manual_seed(int(os.getenv('SEED', 0)))
blob = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')


def to_tensor(a):
    t = torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255
    return (t - t.mean((0, 2, 3), keepdim=True)) / t.std((0, 2, 3), keepdim=True)


x_train, x_valid = to_tensor(blob['x_train']), to_tensor(blob['x_valid'])
y_train, y_valid = torch.from_numpy(blob['y_train']), torch.from_numpy(blob['y_valid'])


def separable(i, o, s):
    return nn.Sequential(
        nn.Conv2d(i, i, 3, s, 1, groups=i), nn.ReLU(inplace=True),
        nn.Conv2d(i, o, 1), nn.ReLU(inplace=True))


class TinyMobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(inplace=True))
        self.body = nn.Sequential(separable(24, 48, 1), separable(48, 64, 2), separable(64, 96, 2))
        self.classifier = nn.Linear(96, 10)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_uniform_(m.weight, nonlinearity='relu')
                m.bias.data.fill_(-3)

    def forward(self, x):
        return self.classifier(self.body(self.stem(x)).mean((2, 3)))


net = TinyMobile()
sgd = optim.SGD(net.parameters(), lr=0.03, momentum=0.9, nesterov=True)
for epoch in range(5):
    net.train()
    losses = []
    for ids in torch.randperm(5000).split(64):
        out = net(x_train[ids])
        loss = F.cross_entropy(out, y_train[ids])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        acc = (net(x_valid).argmax(1) == y_valid).float().mean().item()
    print('epoch', epoch, 'loss', np.round(np.mean(losses), 4), 'accuracy', round(acc, 4))
