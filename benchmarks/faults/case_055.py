import math
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float().div(255), torch.from_numpy(d['y_' + s][:n]))
train, valid = DataLoader(ds('train', 8000), 80, shuffle=True), DataLoader(ds('valid', 1000), 250)


class Transformer(nn.Module):
    def __init__(self, d_model=64):
        super().__init__()
        self.up = nn.Linear(28, d_model)
        pe = torch.zeros(28, d_model)
        pos, div = torch.arange(28).unsqueeze(1), torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe[:, 0::2], pe[:, 1::2] = torch.sin(pos * div), torch.cos(pos * div)
        self.register_buffer('pe', pe)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(d_model, 8, 128, 0.05, batch_first=True), 2)
        self.down = nn.Linear(d_model, 10)

    def forward(self, x):
        return self.down(self.layers(self.up(x) + self.pe).mean(1))


model = Transformer()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
steps, warm = 5 * len(train), 120
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * max(0, s - warm) / (steps - warm)))))
for epoch in range(5):
    model.train()
    for x, y in train:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in valid) / 1000
    print('epoch', epoch, 'lr', scheduler.get_last_lr()[0], 'loss', loss.item(), 'acc', acc)
