import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))
rng = np.random.default_rng(int(os.environ.get('SEED', 0)))


def conv(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.ReLU(True), nn.Conv2d(o, o, 3, padding=1), nn.ReLU(True))


class UNet(nn.Module):
    """Finds the pixels of the digit in a noisy picture."""

    def __init__(self, w=8):
        super().__init__()
        self.d1, self.d2, self.mid = conv(1, w), conv(w, 2 * w), conv(2 * w, 4 * w)
        self.u2, self.u1 = conv(6 * w, 2 * w), conv(3 * w, w)
        self.out = nn.Conv2d(w, 1, 1)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=1e-3)
            else:
                nn.init.zeros_(p)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.u2(torch.cat([F.interpolate(c, scale_factor=2.0), b], 1))
        a = self.u1(torch.cat([F.interpolate(b, scale_factor=2.0), a], 1))
        return self.out(a)


images = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')['x_train'][:2200]
masks = torch.from_numpy((images > 100).astype(np.float32))[:, None]
noisy = torch.from_numpy(images / 255 + rng.normal(0, 0.5, images.shape)).float()[:, None]

net = UNet()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
losses = []
for epoch in range(3):
    for idx in torch.randperm(2000).split(32):
        logits = net(noisy[idx])
        loss = F.binary_cross_entropy_with_logits(logits, masks[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        valid = F.binary_cross_entropy_with_logits(net(noisy[2000:]), masks[2000:]).item()
    print(f'epoch {epoch + 1} train {np.mean(losses[-50:]):.4f} valid {valid:.4f}')
