import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MixerBlock(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channel = nn.Sequential(nn.Linear(dim, 128), nn.GELU(), nn.Linear(128, dim))

    def forward(self, x):
        x = x + self.token(self.n1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel(self.n2(x))


class Mixer(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.stem = nn.Conv2d(1, dim, 7, 7)
        self.blocks = nn.Sequential(MixerBlock(16, dim), MixerBlock(16, dim))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


if __name__ == '__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--seed', type=int, default=0)
    torch.manual_seed(p.parse_args().seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    f = lambda k, n: torch.from_numpy(d[k][:n])[:, None].float() / 255
    x, xv, y, yv = f('x_train', 8000), f('x_valid', 1000), torch.from_numpy(d['y_train'][:8000]), torch.from_numpy(d['y_valid'][:1000])
    model = Mixer()
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98))
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(4):
        for idx in torch.randperm(8000).split(64):
            loss = nn.functional.cross_entropy(model(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            averaged.update_parameters(model)
        averaged.eval()
        with torch.no_grad():
            print('epoch', epoch, 'loss', loss.item(), 'acc', (averaged(xv).argmax(1) == yv).float().mean().item())
