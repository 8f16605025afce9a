import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Encoder(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.inp = nn.Linear(28, dim)
        self.pos = nn.Parameter(torch.zeros(28, dim))
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, 64, 0.0, batch_first=True), 1)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.inp(x) + self.pos).mean(1))


class Experiment:
    def __init__(self, seed):
        torch.manual_seed(seed)
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.x, self.y = torch.from_numpy(d['x_train'][:4000]).float() / 255, torch.from_numpy(d['y_train'][:4000])
        self.model = Encoder()
        self.opt = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.log = []

    def step(self, idx):
        out = self.model(self.x[idx])
        loss = F.cross_entropy(out, self.y[idx])
        smooth = out.logsumexp(1).pow(2).mean() * 1e-4
        self.opt.zero_grad()
        (loss + smooth).backward(retain_graph=True)
        self.opt.step()
        self.log.append({'loss': loss, 'z': smooth})

    def run(self, epochs):
        for epoch in range(epochs):
            for idx in torch.randperm(len(self.x)).split(20):
                self.step(idx)
            recent = [float(r['loss']) for r in self.log[-50:]]
            print(f'epoch {epoch} loss {np.mean(recent):.4f}')


p = argparse.ArgumentParser()
p.add_argument('--seed', type=int, default=0)
Experiment(p.parse_args().seed).run(2)
