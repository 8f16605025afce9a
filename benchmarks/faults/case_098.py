import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image


def load_for_training(arrays):
    return torch.from_numpy(arrays[..., ::-1].copy()).permute(0, 3, 1, 2).float().div(255)


def load_for_test(arrays):
    images = [Image.fromarray(a).convert('RGB') for a in arrays]
    return torch.stack([torch.from_numpy(np.array(i)) for i in images]).permute(0, 3, 1, 2).float()


class Separable(nn.Sequential):
    def __init__(self, i, o, s):
        super().__init__(nn.Conv2d(i, i, 3, s, 1, groups=i), nn.Conv2d(i, o, 1), nn.GroupNorm(4, o), nn.SiLU())


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    ap.add_argument('--epochs', type=int, default=5)
    args = ap.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    x, y = load_for_training(d['x_train']), torch.from_numpy(d['y_train'])
    xt, yt = load_for_test(d['x_valid']), torch.from_numpy(d['y_valid'])
    net = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.SiLU(), Separable(24, 48, 1), Separable(48, 96, 2), Separable(96, 96, 2),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(args.epochs):
        net.train()
        meter = []
        for idx in torch.randperm(len(x)).split(50):
            loss = F.cross_entropy(net(x[idx]), y[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            meter.append(loss.item())
        net.eval()
        with torch.no_grad():
            out = torch.cat([net(c) for c in xt.split(250)])
        print(f'[{epoch}] train {np.mean(meter):.4f} test {F.cross_entropy(out, yt):.4f} acc {(out.argmax(1) == yt).float().mean():.4f}')


if __name__ == '__main__':
    main()
