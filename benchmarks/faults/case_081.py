import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))


class Body(nn.Module):
    def __init__(self, w=24):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, w, 3, 2, 1), nn.BatchNorm2d(w), nn.ReLU())
        self.a = nn.Sequential(nn.Conv2d(w, w, 3, 1, 1), nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, w, 3, 1, 1), nn.BatchNorm2d(w))
        self.down = nn.Sequential(nn.Conv2d(w, 2 * w, 3, 2, 1), nn.BatchNorm2d(2 * w), nn.ReLU())

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(x + self.a(x))
        return F.adaptive_avg_pool2d(self.down(x), 3).flatten(1)


d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x = torch.from_numpy(d['x_train'][:8000])[:, None].float() / 255
y = torch.from_numpy(d['y_train'][:8000])
xv, yv = torch.from_numpy(d['x_valid'][:2000])[:, None].float() / 255, torch.from_numpy(d['y_valid'][:2000])


def train(net, body, params, x, y, epochs, lr):
    opt = torch.optim.Adam(params, lr=lr)
    for epoch in range(epochs):
        net.train()
        body.eval() if not any(p.requires_grad for p in body.parameters()) else body.train()
        for idx in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(net(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
        print('  epoch', epoch, 'loss', round(loss.item(), 4))


body = Body()
old = y < 5
print('first task: 0 to 4')
net = nn.Sequential(body, nn.Linear(432, 5))
train(net, body, net.parameters(), x[old], y[old], 2, 1e-3)

print('second task: 5 to 9, the body as it is')
for p in body.parameters():
    p.requires_grad = False
net = nn.Sequential(body, nn.Linear(432, 5))
train(net, body, net[1].parameters(), x[~old], y[~old] - 5, 4, 3e-3)
net.eval()
with torch.no_grad():
    new = yv >= 5
    print('accuracy', (net(xv[new]).argmax(1) == yv[new] - 5).float().mean().item())
