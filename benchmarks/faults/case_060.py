import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
data = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')


def tensors(split, step=1):
    x = torch.from_numpy(data['x_' + split][::step]).permute(0, 3, 1, 2).float() / 255
    return TensorDataset((x - 0.46) / 0.25, torch.from_numpy(data['y_' + split][::step]))


train_dataloader = DataLoader(tensors('train', 2), batch_size=50, shuffle=True)
test_dataloader = DataLoader(tensors('valid'), batch_size=250)


class NeuralNetwork(nn.Module):
    def __init__(self):
        super(NeuralNetwork, self).__init__()
        self.stack = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.Flatten(), nn.Dropout(0.6),
            nn.Linear(64 * 64, 128), nn.ReLU(), nn.Dropout(0.6),
            nn.Linear(128, 10))

    def forward(self, x):
        return self.stack(x)


model = NeuralNetwork()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)


def train(dataloader, model, loss_fn, optimizer):
    size = len(dataloader.dataset)
    for batch, (X, y) in enumerate(dataloader):
        pred = model(X)
        loss = loss_fn(pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if batch % 25 == 0:
            print(f"loss: {loss.item():>7f}  [{batch * len(X):>5d}/{size:>5d}]")


def test(dataloader, model):
    size = len(dataloader.dataset)
    model.eval()
    test_loss, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            pred = model(X)
            test_loss += loss_fn(pred, y).item()
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    print(f"Test Error: Avg loss: {test_loss / len(dataloader):>8f}, Accuracy: {correct / size:.4f}")


for t in range(12):
    print(f"Epoch {t + 1}\n-------------------------------")
    train(train_dataloader, model, loss_fn, optimizer)
    test(test_dataloader, model)
