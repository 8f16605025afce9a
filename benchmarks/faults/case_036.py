import argparse
import os
import numpy as np
import torch
from torch import nn


class ViT(nn.Module):
    def __init__(self, dim=48, depth=2):
        super().__init__()
        self.embed = nn.Linear(8 * 8 * 3, dim)
        self.pos = nn.Parameter(torch.randn(16, dim) * .02)
        self.body = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, 96, 0.0, 'gelu', batch_first=True), depth)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        b = len(x)
        p = x.reshape(b, 4, 8, 4, 8, 3).transpose(2, 3).reshape(b, 16, 192)
        return self.head(self.body(self.embed(p) + self.pos).mean(1))


def epoch(model, x, y, opt=None, bs=50):
    losses, hits = [], 0
    for i in range(0, len(x), bs):
        xb, yb = x[i:i + bs], y[i:i + bs]
        with torch.set_grad_enabled(opt is not None):
            out = model(xb)
            loss = nn.functional.cross_entropy(out, yb)
        if opt is not None:
            opt.zero_grad()
            loss.backward()
            opt.step()
        losses.append(loss.item())
        hits += (out.argmax(1) == yb).sum().item()
    return np.mean(losses), hits / len(x)


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--epochs', type=int, default=6)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    x, xv = [(torch.from_numpy(d[k]).float() - 121) / 63 for k in ('x_train', 'x_valid')]
    y, yv = torch.from_numpy(d['y_train']), torch.from_numpy(d['y_valid'])
    model = ViT()
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    for e in range(a.epochs):
        model.train()
        loss, acc = epoch(model, x, y, opt)
        model.eval()
        vloss, vacc = epoch(model, xv, yv)
        print(f'{e}: train {loss:.3f}/{acc:.3f} valid {vloss:.3f}/{vacc:.4f}')


main()
