import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument('--seed', type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)

encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32))
decoder = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 784))
classifier = nn.Linear(32, 10)
opt_auto = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3)
opt_class = torch.optim.SGD(classifier.parameters(), lr=0.05, momentum=0.9)

d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
x, y = torch.from_numpy(d['x_train'][:10000]).float() / 255, torch.from_numpy(d['y_train'][:10000])
xv, yv = torch.from_numpy(d['x_valid'][:1000]).float() / 255, torch.from_numpy(d['y_valid'][:1000])
for epoch in range(6):
    for idx in torch.randperm(len(x)).split(100):
        code = encoder(x[idx])
        rec = F.mse_loss(decoder(code), x[idx].flatten(1))
        opt_auto.zero_grad()
        rec.backward()
        opt_auto.step()

        loss = F.cross_entropy(classifier(code.detach()), y[idx])
        opt_class.zero_grad()
        loss.backward()
        opt_class.step()
    with torch.no_grad():
        code = encoder(xv)
        acc = (classifier(code).argmax(1) == yv).float().mean().item()
        mse = F.mse_loss(decoder(code), xv.flatten(1)).item()
    print(f'epoch {epoch} classifier loss {loss.item():.4f} acc {acc:.4f} reconstruction {mse:.4f}')
