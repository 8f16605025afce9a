import argparse
import os

import numpy as np
import torch
import torch.nn as nn


class RNNClassifier(nn.Module):
    def __init__(self, inputs=28, hidden=64, classes=10):
        super().__init__()
        self.rnn = nn.RNN(inputs, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(out[:, -1])


def sequences(images, length):
    """Rows of the picture, padded to a fixed length."""
    x = torch.from_numpy(images).float() / 255
    pad = torch.zeros(len(x), length - 28, 28)
    return torch.cat([x, pad], 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--length', type=int, default=120)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
    x, y = sequences(d['x_train'][:6000], args.length), torch.from_numpy(d['y_train'][:6000])
    xv, yv = sequences(d['x_valid'][:1000], args.length), torch.from_numpy(d['y_valid'][:1000])
    model = RNNClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    step = 0
    for epoch in range(4):
        model.train()
        for idx in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            loss = loss_fn(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
            step += 1
            if step % 40 == 0:
                print('step', step, 'loss', round(loss.item(), 4))
        model.eval()
        with torch.no_grad():
            acc = (model(xv).argmax(1) == yv).float().mean().item()
        print('epoch', epoch, 'valid accuracy', round(acc, 4))


main()
