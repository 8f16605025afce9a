import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))

z = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
train_set = TensorDataset(torch.tensor(z['x_train'][:12000] / 255., dtype=torch.float32), torch.tensor(z['y_train'][:12000]))
test_set = TensorDataset(torch.tensor(z['x_valid'] / 255., dtype=torch.float32), torch.tensor(z['y_valid']))
train_dl = DataLoader(train_set, batch_size=64, shuffle=True)
test_dl = DataLoader(test_set, batch_size=500)


class DeepNet(nn.Module):
    def __init__(self, depth=10, width=100):
        super().__init__()
        self.flatten = nn.Flatten()
        blocks = [nn.Linear(28 * 28, width), nn.Sigmoid()]
        for _ in range(depth - 1):
            blocks += [nn.Linear(width, width), nn.Sigmoid()]
        self.stack = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 10)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, x):
        return self.head(self.stack(self.flatten(x)))


def train_loop(dataloader, model, loss_fn, optimizer):
    model.train()
    for batch, (X, y) in enumerate(dataloader):
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 60 == 0:
            print(f'loss: {loss.item():>7f}  [{batch * 64:>5d}/{len(dataloader.dataset):>5d}]')


def test_loop(dataloader, model, loss_fn):
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).float().sum().item()
    print(f'Test: avg loss {test_loss / len(dataloader):>8f}, accuracy {correct / len(dataloader.dataset):.4f}')


model = DeepNet()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for t in range(4):
    print(f'Epoch {t + 1}')
    train_loop(train_dl, model, loss_fn, optimizer)
    test_loop(test_dl, model, loss_fn)
