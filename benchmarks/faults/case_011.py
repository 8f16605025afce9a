import copy
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class TinyTransformer(nn.Module):
    def __init__(self, width=48, layers=2):
        super().__init__()
        self.inp = nn.Linear(28, width)
        self.pos = nn.Parameter(torch.zeros(28, width))
        self.enc = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, 96, dropout=0.0, batch_first=True), layers)
        self.out = nn.Linear(width, 10)

    def forward(self, rows):
        return self.out(self.enc(self.inp(rows) + self.pos).mean(dim=1))


def main():
    torch.manual_seed(int(os.environ.get('SEED', 0)))
    data = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    to = lambda a: torch.from_numpy(a).float().div(255).bfloat16()
    x, y = to(data['x_train'][:3000]), torch.from_numpy(data['y_train'][:3000])
    xv, yv = to(data['x_valid'][:1000]), torch.from_numpy(data['y_valid'][:1000])

    model = TinyTransformer().bfloat16()
    master = [p.detach().clone().float().requires_grad_() for p in model.parameters()]
    optimizer = torch.optim.AdamW(master, lr=1e-3, weight_decay=0.01)

    for epoch in range(4):
        model.train()
        losses = []
        for idx in torch.randperm(len(x)).split(50):
            loss = F.cross_entropy(model(x[idx]).float(), y[idx])
            model.zero_grad()
            loss.backward()
            for m, p in zip(master, model.parameters()):
                m.grad = p.grad.float()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            acc = (model(xv).float().argmax(1) == yv).float().mean()
        print(f'epoch {epoch + 1} loss {np.mean(losses):.4f} acc {acc:.4f}')


main()
