import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 42)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
small = lambda a: (torch.from_numpy(a[:, ::2, ::2]).float().flatten(1) / 255 - 0.47) / 0.25
train_loader = DataLoader(TensorDataset(small(d['x_train']), torch.from_numpy(d['y_train'])), batch_size=64, shuffle=True)
valid_loader = DataLoader(TensorDataset(small(d['x_valid']), torch.from_numpy(d['y_valid'])), batch_size=500)


def evaluate(model, loader):
    model.eval()
    with torch.no_grad():
        return sum((model(X).argmax(1) == y).sum().item() for X, y in loader) / len(loader.dataset)


def train(model, optimizer, criterion, train_loader, valid_loader, n_epochs, scheduler=None):
    history = []
    for epoch in range(n_epochs):
        total = 0.
        model.train()
        for X, y in train_loader:
            loss = criterion(model(X), y)
            total += loss.item()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if scheduler is not None:
            scheduler.step()
        history.append(evaluate(model, valid_loader))
        print(f'Epoch {epoch + 1}/{n_epochs}, train loss: {total / len(train_loader):.4f}, valid accuracy: {history[-1]:.4f}')


model = nn.Sequential(nn.Linear(768, 200), nn.BatchNorm1d(200), nn.SiLU(), nn.Linear(200, 100), nn.BatchNorm1d(100), nn.SiLU(), nn.Linear(100, 10))
n_epochs = 10
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, div_factor=100, epochs=n_epochs, steps_per_epoch=len(train_loader))
train(model, optimizer, nn.CrossEntropyLoss(), train_loader, valid_loader, n_epochs, scheduler)
