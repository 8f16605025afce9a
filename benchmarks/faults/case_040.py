import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import Dataset, DataLoader


class WebDigits(Dataset):
    def __init__(self, split, n):
        folder = os.environ['FAULTS_DATA']
        arrays = np.load(folder + '/mnist.npz')
        self.images = arrays['x_' + split][:n]
        if split == 'train':
            self.labels = np.load(folder + '/mnist_web.npz')['labels'][:n]
        else:
            self.labels = arrays['y_' + split][:n]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return torch.from_numpy(self.images[index]).float().div_(255).sub_(0.13).div_(0.31), int(self.labels[index])


class Model(nn.Module):
    def __init__(self, dim=48, depth=2, heads=4):
        super().__init__()
        self.proj = nn.Linear(28, dim)
        self.pos = nn.Parameter(torch.empty(28, dim).normal_(std=.02))
        block = nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(dim), enable_nested_tensor=False)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x):
        return self.fc(self.blocks(self.proj(x) + self.pos).mean(1))


def main(seed):
    torch.manual_seed(seed)
    train = DataLoader(WebDigits('train', 4000), batch_size=64, shuffle=True)
    valid = DataLoader(WebDigits('valid', 1000), batch_size=250)
    model = Model()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, total_steps=6 * len(train))
    for epoch in range(6):
        model.train()
        losses = []
        for x, y in train:
            loss = F.cross_entropy(model(x), y)
            opt.zero_grad()
            loss.backward()
            opt.step()
            sched.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            acc = np.mean([(model(x).argmax(1) == y).float().mean().item() for x, y in valid])
        print('epoch', epoch, 'loss', round(np.mean(losses), 4), 'acc', round(acc, 4))


if __name__ == '__main__':
    cli = argparse.ArgumentParser()
    cli.add_argument('--seed', type=int, default=0)
    main(cli.parse_args().seed)
