import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


class Inverted(nn.Module):
    def __init__(self, i, o, s):
        super().__init__()
        h = 3 * i
        self.use_res = s == 1 and i == o
        self.conv = nn.Sequential(
            nn.Conv2d(i, h, 1, bias=False), nn.BatchNorm2d(h), nn.ReLU6(),
            nn.Conv2d(h, h, 3, s, 1, groups=h, bias=False), nn.BatchNorm2d(h), nn.ReLU6(),
            nn.Conv2d(h, o, 1, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        y = self.conv(x)
        return x + y if self.use_res else y


class Mobile(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.blocks = nn.Sequential(Inverted(16, 16, 1), Inverted(16, 24, 2), Inverted(24, 24, 1), Inverted(24, 48, 2), Inverted(48, 48, 1))
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((-2, -1)))


@torch.no_grad()
def eval_policy(policy, x, y):
    policy.eval()
    out = torch.cat([policy(c) for c in x.split(250)])
    return {'loss': F.cross_entropy(out, y).item(), 'success': (out.argmax(1) == y).float().mean().item()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--steps', type=int, default=450)
    parser.add_argument('--eval-freq', type=int, default=150)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    x, xv = [torch.from_numpy(d[k]).permute(0, 3, 1, 2).float().div(255).sub(.46).div(.25) for k in ('x_train', 'x_valid')]
    y, yv = torch.from_numpy(d['y_train']), torch.from_numpy(d['y_valid'])
    policy = Mobile()
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    policy.train()
    print('before training', eval_policy(policy, xv, yv))
    for step in range(1, args.steps + 1):
        idx = torch.randint(len(x), (48,))
        loss = F.cross_entropy(policy(x[idx]), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f'step {step} loss {loss.item():.3f}')
        if step % args.eval_freq == 0:
            print(f'step {step}', eval_policy(policy, xv, yv))


if __name__ == '__main__':
    main()
