import argparse
import os
import numpy as np
import torch
from torch import nn


class Config:
    epochs = 5
    batch_size = 64
    accumulate = 2
    lr = 1e-3
    hidden = 64


class SequenceModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.rnn = nn.GRU(28, cfg.hidden, num_layers=2, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(cfg.hidden), nn.Linear(cfg.hidden, 10))

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.head(out.mean(1))


class Learner:
    def __init__(self, model, cfg):
        self.model, self.cfg = model, cfg
        self.opt = torch.optim.RMSprop(model.parameters(), lr=cfg.lr)
        self.loss = nn.CrossEntropyLoss()
        self.step = 0

    def batch(self, x, y):
        loss = self.loss(self.model(x), y) / self.cfg.accumulate
        loss.backward()
        if (self.step + 1) % self.cfg.accumulate == 0:
            self.opt.step()
            self.opt.zero_grad()
            self.step += 1
        return loss.item() * self.cfg.accumulate

    def fit(self, x, y, xv, yv):
        for epoch in range(self.cfg.epochs):
            self.model.train()
            losses = [self.batch(x[i], y[i]) for i in torch.randperm(len(x)).split(self.cfg.batch_size)]
            self.model.eval()
            with torch.no_grad():
                acc = (self.model(xv).argmax(1) == yv).float().mean().item()
            print(f'epoch {epoch} loss {sum(losses) / len(losses):.4f} acc {acc:.4f}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    torch.manual_seed(parser.parse_args().seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    t = lambda a: torch.from_numpy(a).float() / 255
    Learner(SequenceModel(Config), Config).fit(
        t(d['x_train'][:6000]), torch.from_numpy(d['y_train'][:6000]), t(d['x_valid'][:1000]), torch.from_numpy(d['y_valid'][:1000]))
