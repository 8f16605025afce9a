import os
import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
X = torch.tensor(d['x_train'][:6000], dtype=torch.float32) / 255
Y = torch.tensor(d['y_train'][:6000])
Xt = torch.tensor(d['x_valid'][:1000], dtype=torch.float32) / 255
Yt = torch.tensor(d['y_valid'][:1000])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(28, 64, 1, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        r, _ = self.rnn(x)
        return self.out(r.max(1).values)


net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
loss_func = nn.CrossEntropyLoss()
for epoch in range(5):
    net.train()
    for step, b in enumerate(torch.randperm(len(X)).split(64)):
        output = net(X[b])
        loss = loss_func(output, Y[b])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            net.eval()
            with torch.no_grad():
                accuracy = (net(Xt).argmax(1) == Yt).float().mean().item()
            net.train()
            print('Epoch: ', epoch, '| train loss: %.4f' % loss.item(), '| test accuracy: %.4f' % accuracy)
