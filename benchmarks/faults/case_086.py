import os
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(int(os.environ.get('SEED', 0)))


class L_color(nn.Module):
    """The mean colours of a picture should be the same before and after."""

    def __init__(self):
        super(L_color, self).__init__()

    def forward(self, a, b):
        mean_a, mean_b = a.mean([2, 3]), b.mean([2, 3])
        return torch.pow(((mean_a - mean_b) ** 2).sum(1), 0.5).mean()


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.dec = nn.Sequential(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1))

    def forward(self, x):
        return self.dec(self.enc(x))


images = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')['x_train'][:6000]
x = torch.from_numpy(images)[:, None].float() / 255
# some crops of the edge, as in the big pictures
x[::37] = 0
net, color, rec = Autoencoder(), L_color(), nn.L1Loss()
for p in net.modules():
    if isinstance(p, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.zeros_(p.bias)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(3):
    losses = []
    for idx in torch.randperm(6000).split(64):
        out = net(x[idx])
        loss = rec(out, x[idx]) + 0.5 * color(out, x[idx])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    print('epoch', epoch, 'loss', np.mean(losses[-20:]))
