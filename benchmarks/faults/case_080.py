import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))


class AttentionBlock(nn.Module):
    def __init__(self, dim, heads=4):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, dim * 2), nn.GELU(), nn.Linear(dim * 2, dim))

    def forward(self, x):
        h = self.norm1(x)
        h, _ = self.attn(h, h, h)
        x = x + h
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, dim=32, depth=2):
        super().__init__()
        self.to_patch = nn.Conv2d(1, dim, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 50, dim) * 0.02)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*[AttentionBlock(dim) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))

    def forward(self, x):
        x = self.to_patch(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.token.repeat(x.size(0), 1, 1), x], dim=1) + self.pos
        return self.head(self.blocks(x).mean(dim=1))


npz = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
scale = lambda a: (torch.from_numpy(a).float()[:, None] / 255 - 0.1307) / 0.3081
train = DataLoader(TensorDataset(scale(npz['x_train'][:5000]), torch.from_numpy(npz['y_train'][:5000])), batch_size=100, shuffle=True)
valid = DataLoader(TensorDataset(scale(npz['x_valid'][:1000]), torch.from_numpy(npz['y_valid'][:1000])), batch_size=100)
model = VisionTransformer()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
for epoch in range(4):
    model.train()
    losses = []
    for x, y in train:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        acc = np.mean([(model(x).argmax(1) == y).float().mean().item() for x, y in valid])
    print(f'epoch {epoch:2d} loss {np.mean(losses):.4f} acc {acc:.4f}')
