import argparse
import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


def get_model():
    def dw(i, o, s):
        return [nn.Conv2d(i, i, 3, s, 1, groups=i, bias=False), nn.BatchNorm2d(i), nn.ReLU(),
                nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
    return nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
                         *dw(24, 32, 1), *dw(32, 64, 2), *dw(64, 128, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def train_one_epoch(model, optimizer, lr_scheduler, loader, epoch, print_freq=20):
    model.train()
    for i, (images, targets) in enumerate(loader):
        loss = F.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        if i % print_freq == 0:
            print(f'Epoch: [{epoch}] [{i}/{len(loader)}] lr: {optimizer.param_groups[0]["lr"]:.6f} loss: {loss.item():.4f}')


def evaluate(model, loader):
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in loader) / len(loader.dataset)
    print('Test: accuracy', acc)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--epochs', type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
    t = lambda k: (torch.from_numpy(d['x_' + k]).permute(0, 3, 1, 2).float() / 255 - 0.46) / 0.25
    data_loader = DataLoader(TensorDataset(t('train'), torch.from_numpy(d['y_train'])), batch_size=64, shuffle=True)
    data_loader_test = DataLoader(TensorDataset(t('valid'), torch.from_numpy(d['y_valid'])), batch_size=250)
    model = get_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005)
    lr_scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.1)
    for epoch in range(args.epochs):
        train_one_epoch(model, optimizer, lr_scheduler, data_loader, epoch)
        evaluate(model, data_loader_test)


main()
