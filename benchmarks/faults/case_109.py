import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
X = torch.from_numpy(d['x_train'][:6000]).float() / 255
y = torch.from_numpy(d['y_train'][:6000])
X_val = torch.from_numpy(d['x_valid'][:1000]).float() / 255
y_val = torch.from_numpy(d['y_valid'][:1000])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(input_size=28, hidden_size=64, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        h, _ = self.gru(x)
        return self.fc(h[:, -1, :])


model = Model()
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)

for epoch in range(6):
    model.train()
    optimizer.zero_grad()
    perm = torch.randperm(len(X))
    epoch_loss = 0
    for i in range(0, len(X), 60):
        batch = perm[i:i + 60]
        out = model(X[batch])
        loss = F.cross_entropy(out, y[batch])
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item()
    model.eval()
    with torch.no_grad():
        val_acc = (model(X_val).argmax(dim=1) == y_val).float().mean().item()
    print('Epoch: %d | Loss: %.4f | Val acc: %.4f' % (epoch, epoch_loss / 100, val_acc))
