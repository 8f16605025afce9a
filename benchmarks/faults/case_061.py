import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Recurrent(nn.Module):
    def __init__(self, n_in, n_hidden, n_out):
        super().__init__()
        self.cell = nn.RNNCell(n_in, n_hidden)
        self.n_hidden = n_hidden
        self.readout = nn.Linear(n_hidden, n_out)
        nn.init.orthogonal_(self.cell.weight_hh, gain=2.0)

    def forward(self, x):
        h = x.new_zeros(x.size(0), self.n_hidden)
        for t in range(x.size(1)):
            h = self.cell(x[:, t], h)
        return self.readout(h)


class Trainer:
    def __init__(self, model, train, valid, lr):
        self.model, self.train_dl, self.valid_dl = model, train, valid
        self.opt = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        self.loss = nn.CrossEntropyLoss()

    def epoch(self):
        self.model.train()
        total = 0
        for x, y in self.train_dl:
            self.opt.zero_grad()
            loss = self.loss(self.model(x), y)
            loss.backward()
            self.opt.step()
            total += loss.item()
        return total / len(self.train_dl)

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        hits = sum((self.model(x).argmax(1) == y).sum().item() for x, y in self.valid_dl)
        return hits / len(self.valid_dl.dataset)

    def fit(self, epochs):
        for e in range(epochs):
            print(f'epoch {e} train_loss {self.epoch():.4f} valid_acc {self.evaluate():.4f}')


torch.manual_seed(int(os.environ.get('SEED', '0')))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
seq = lambda a: torch.from_numpy(a).float().div(255).view(len(a), 56, 14)
train = DataLoader(TensorDataset(seq(d['x_train'][:6000]), torch.from_numpy(d['y_train'][:6000])), batch_size=64, shuffle=True)
valid = DataLoader(TensorDataset(seq(d['x_valid'][:1000]), torch.from_numpy(d['y_valid'][:1000])), batch_size=500)
Trainer(Recurrent(14, 100, 10), train, valid, lr=0.02).fit(5)
