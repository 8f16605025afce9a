import argparse
import os
import numpy as np
import torch
import torch.nn as nn


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Mixer(nn.Module):
    def __init__(self, patches=16, dim=48, depth=3):
        super().__init__()
        self.embed = nn.Linear(49, dim)
        self.tokens = nn.ModuleList([Mlp(patches, 32) for _ in range(depth)])
        self.channels = nn.ModuleList([Mlp(dim, 96) for _ in range(depth)])
        self.head = nn.Linear(dim, 10)
        self.apply(self._init)

    def _init(self, m):
        if isinstance(m, nn.Linear):
            m.weight.data.normal_(0, 0.5)
            m.bias.data.zero_()

    def forward(self, x):
        b = x.size(0)
        x = x.view(b, 4, 7, 4, 7).transpose(2, 3).reshape(b, 16, 49)
        x = self.embed(x)
        for token, channel in zip(self.tokens, self.channels):
            x = x + token(x.transpose(1, 2)).transpose(1, 2)
            x = x + channel(x)
        return self.head(x.mean(1))


def main(seed, lr=0.01, epochs=4, batch_size=64):
    torch.manual_seed(seed)
    d = np.load(os.path.join(os.environ['FAULTS_DATA'], 'mnist.npz'))
    x = (torch.from_numpy(d['x_train'][:8000]).float() - 33) / 79
    y = torch.from_numpy(d['y_train'][:8000])
    xv = (torch.from_numpy(d['x_valid'][:2000]).float() - 33) / 79
    yv = torch.from_numpy(d['y_valid'][:2000])
    net = Mixer()
    opt = torch.optim.SGD(net.parameters(), lr, momentum=0.9)
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(x))
        losses = []
        for start in range(0, len(x), batch_size):
            batch = order[start:start + batch_size]
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            opt.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            opt.step()
            losses.append(loss.item())
        net.eval()
        with torch.no_grad():
            acc = (net(xv).argmax(1) == yv).float().mean().item()
        print('epoch {} loss {:.3f} acc {:.4f}'.format(epoch, sum(losses) / len(losses), acc))


if __name__ == '__main__':
    ap = argparse.ArgumentParser()
    ap.add_argument('--seed', type=int, default=0)
    main(ap.parse_args().seed)
