import argparse
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

ap = argparse.ArgumentParser()
ap.add_argument('--seed', type=int, default=0)
args = ap.parse_args()
torch.manual_seed(args.seed)


class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super(RNN, self).__init__()
        self.gru = nn.GRU(input_size, hidden_size, batch_first=True)
        self.h2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, line_tensor):
        _, hidden = self.gru(line_tensor)
        return self.softmax(self.h2o(hidden[0]))


d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
ds = lambda s, n: TensorDataset(torch.from_numpy(d['x_' + s][:n]).float() / 255, torch.from_numpy(d['y_' + s][:n]))
train, valid = DataLoader(ds('train', 6000), 50, shuffle=True), DataLoader(ds('valid', 1000), 250)
rnn = RNN(28, 80, 10)
criterion = nn.NLLLoss()
optimizer = torch.optim.RMSprop(rnn.parameters(), lr=1e-3)
for epoch in range(5):
    rnn.train()
    current = 0
    for x, y in train:
        rnn.zero_grad()
        loss = criterion(rnn(x), y)
        loss.backward()
        optimizer.step()
        current += loss.item()
    rnn.eval()
    with torch.no_grad():
        acc = np.mean([(rnn(x).argmax(1) == y).float().mean().item() for x, y in valid])
    print('%d %.4f %.4f' % (epoch, current / len(train), acc))
