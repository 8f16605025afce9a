import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class T(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.e = nn.Conv2d(1, dim, 7, 7)
        self.p = nn.Parameter(torch.randn(16, dim) * 0.02)
        self.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 4, 128, dropout=0.1, batch_first=True), 2)
        self.o = nn.Linear(dim, 10)

    def forward(self, x):
        return self.o(self.t(self.e(x).flatten(2).transpose(1, 2) + self.p).mean(1))


def soft_cross_entropy(logits, target):
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--alpha', type=float, default=0.3)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    f = lambda k, n: (torch.from_numpy(d[k][:n]).float()[:, None] - 33) / 79
    x, xv = f('x_train', 8000), f('x_valid', 1000)
    y, yv = F.one_hot(torch.from_numpy(d['y_train'][:8000]), 10).float(), torch.from_numpy(d['y_valid'][:1000])
    model = T()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    beta = torch.distributions.Beta(args.alpha, args.alpha)
    for epoch in range(5):
        model.train()
        for idx in torch.randperm(8000).split(100):
            lam = beta.sample((len(idx),))
            other = idx[torch.randperm(len(idx))]
            xb = lam.view(-1, 1, 1, 1) * x[idx] + (1 - lam).view(-1, 1, 1, 1) * x[other]
            yb = lam.view(-1, 1) * y[idx] + (1 - lam).view(-1, 1) * y[other]
            loss = soft_cross_entropy(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            print('epoch', epoch, 'loss', round(loss.item(), 4), 'acc', round((model(xv).argmax(1) == yv).float().mean().item(), 4))
