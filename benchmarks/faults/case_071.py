import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float().flatten(1) / 255, torch.from_numpy(d['y_' + s][:n]))
train, valid = DataLoader(ds('train', 12000), batch_size=128, shuffle=True), DataLoader(ds('valid', 2000), batch_size=500)


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


model = nn.Sequential(nn.Linear(784, 128), Block(128), Block(128), nn.GELU(), nn.Linear(128, 10))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(5):
    model.train()
    total = 0
    for x, y in train:
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in valid) / 2000
    print(f'epoch {epoch}: {total / len(train):.4f}, {acc:.4f}')
