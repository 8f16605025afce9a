import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(int(os.environ.get('SEED', 0)))


class Depth(Dataset):
    """A picture and, as its depth map, the blurred green channel of the same picture."""

    def __init__(self, split, n):
        d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
        step = len(d['x_' + split]) // n
        self.images = d['x_' + split][::step]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).permute(2, 0, 1).float() / 255
        depth = F.avg_pool2d(image[1:2][None], 5, 1, 2)[0, 0]
        return image, (depth - 0.47) * 4


class Net(nn.Module):
    def __init__(self, w=16):
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, w, 3, 2, 1), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(w, 2 * w, 3, 2, 1), nn.ReLU())
        self.up1 = nn.Sequential(nn.ConvTranspose2d(2 * w, w, 2, 2), nn.ReLU())
        self.up2 = nn.Sequential(nn.ConvTranspose2d(2 * w, w, 2, 2), nn.ReLU())
        self.out = nn.Conv2d(w + 3, 1, 3, padding=1)

    def forward(self, x):
        a = self.down1(x)
        b = self.up1(self.down2(a))
        return self.out(torch.cat([self.up2(torch.cat([a, b], 1)), x], 1))


train = DataLoader(Depth('train', 2500), batch_size=16, shuffle=True)
valid = DataLoader(Depth('valid', 500), batch_size=50)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(3):
    model.train()
    losses = []
    for image, depth in train:
        pred = model(image)
        loss = F.smooth_l1_loss(pred, depth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        mae = np.mean([(model(i)[:, 0] - t).abs().mean().item() for i, t in valid])
    print(f'epoch {epoch} loss {np.mean(losses):.4f} mae {mae:.4f}')
