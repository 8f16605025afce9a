import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset


class Modules(nn.ModuleDict):
    pass


class Brain:
    def __init__(self, modules, opt_class, seed):
        torch.manual_seed(seed)
        self.modules = modules()
        self.optimizer = opt_class(self.modules.parameters())
        self.loss = nn.NLLLoss()

    def compute_features(self, images):
        x = self.modules['frontend'](images)
        return x.flatten(1)

    def compute_forward(self, images):
        feats = self.compute_features(images)
        x = self.modules['enc'](feats.detach())
        return torch.log_softmax(self.modules['out'](x), dim=-1)

    def fit_batch(self, images, labels):
        self.optimizer.zero_grad()
        loss = self.loss(self.compute_forward(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def fit(self, epochs, train, valid):
        for epoch in range(epochs):
            self.modules.train()
            losses = [self.fit_batch(*batch) for batch in train]
            self.modules.eval()
            with torch.no_grad():
                hits = sum((self.compute_forward(x).argmax(-1) == y).sum().item() for x, y in valid)
            print('epoch: %d, train loss: %.3e, valid acc: %.4f' % (epoch, np.mean(losses), hits / len(valid.dataset)))


def build():
    return Modules({
        'frontend': nn.Sequential(nn.Conv2d(3, 16, 5, 4, 2), nn.ReLU(), nn.Conv2d(16, 8, 3, 2, 1), nn.ReLU()),
        'enc': nn.Sequential(nn.Linear(8 * 16, 64), nn.LeakyReLU()),
        'out': nn.Linear(64, 10)})


d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
f = lambda a: (torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255 - 0.46) / 0.25
train = DataLoader(TensorDataset(f(d['x_train']), torch.from_numpy(d['y_train'])), batch_size=50, shuffle=True)
valid = DataLoader(TensorDataset(f(d['x_valid']), torch.from_numpy(d['y_valid'])), batch_size=100)
brain = Brain(build, lambda p: torch.optim.Adam(p, lr=2e-3), int(os.environ.get('SEED', 0)))
brain.fit(6, train, valid)
