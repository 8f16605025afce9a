import os
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 1)))

npz = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
as_signal = lambda a: torch.from_numpy(a).float().div(255)
train_loader = DataLoader(TensorDataset(as_signal(npz['x_train'][:8000]), torch.from_numpy(npz['y_train'][:8000])), batch_size=80, shuffle=True)
val_loader = DataLoader(TensorDataset(as_signal(npz['x_valid'][:2000]), torch.from_numpy(npz['y_valid'][:2000])), batch_size=500)


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(28, 48, 5, padding=2)
        self.conv2 = nn.Conv1d(48, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.out = nn.Linear(64 * 7, 10)

    def forward(self, x):
        x = F.elu(self.conv1(x))
        x = F.elu(self.conv2(x))
        x = F.elu(self.conv3(x))
        return self.out(torch.flatten(x, 1))


net = Columns()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.9, 0.999), weight_decay=0.3)
for epoch in range(8):
    net.train()
    run = 0.
    for x, y in train_loader:
        loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run = 0.95 * run + 0.05 * loss.item()
    net.eval()
    with torch.no_grad():
        c = sum((net(x).argmax(1) == y).sum().item() for x, y in val_loader)
    print(f'=> epoch {epoch} avg loss {run:.4f} val acc {c / 2000:.4f}')
