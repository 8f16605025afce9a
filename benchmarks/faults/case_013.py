import argparse
import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def get_dls(bs):
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    mk = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float().view(-1, 784) / 255, torch.from_numpy(d['y_' + s][:n]))
    return DataLoader(mk('train', 15000), batch_size=bs, shuffle=True), DataLoader(mk('valid', 2000), batch_size=bs * 2)


def fit(epochs, model, loss_func, opt, train_dl, valid_dl):
    for epoch in range(epochs):
        model.train()
        for xb, yb in train_dl:
            loss = loss_func(model(xb), yb)
            loss.backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad():
            tot_loss, tot_acc, count = 0., 0., 0
            for xb, yb in valid_dl:
                pred = model(xb)
                n = len(xb)
                count += n
                tot_loss += loss_func(pred, yb).item() * n
                tot_acc += (pred.argmax(dim=1) == yb).float().mean().item() * n
        print(epoch, tot_loss / count, tot_acc / count)


if __name__ == '__main__':
    a = argparse.ArgumentParser()
    a.add_argument('--seed', type=int, default=0)
    torch.manual_seed(a.parse_args().seed)
    model = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    fit(6, model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.2), *get_dls(64))
