import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class BinaryClassifier(nn.Module):
    """Is the digit one with a hole (0, 6, 8, 9)?"""

    def __init__(self, hidden=48):
        super().__init__()
        self.encoder = nn.GRU(28, hidden, batch_first=True)
        self.classifier = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, 1))
        self.sigmoid = nn.Sigmoid()

    def forward(self, x):
        out, _ = self.encoder(x)
        logits = self.classifier(out.mean(1))
        logits = self.sigmoid(logits).squeeze(-1)
        return logits


def criterion(logits, labels):
    loss_classify = F.binary_cross_entropy_with_logits(logits, labels, reduction='none')
    return torch.mean(loss_classify)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--lr', type=float, default=1e-3)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    hole = lambda y: torch.from_numpy(np.isin(y, (0, 6, 8, 9)).astype(np.float32))
    x, y = torch.from_numpy(d['x_train'][:6000]).float() / 255, hole(d['y_train'][:6000])
    xv, yv = torch.from_numpy(d['x_valid'][:1000]).float() / 255, hole(d['y_valid'][:1000])
    model = BinaryClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    for epoch in range(5):
        model.train()
        losses = []
        for idx in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = criterion(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            p = model(xv)
            p = p if p.min() >= 0 and p.max() <= 1 else torch.sigmoid(p)
            logloss = F.binary_cross_entropy(p, yv).item()
        print(f'epoch {epoch} train {np.mean(losses):.4f} logloss {logloss:.4f} acc {((p > 0.5).float() == yv).float().mean():.4f}')


if __name__ == '__main__':
    main()
