import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
folder = os.environ['FAULTS_DATA']

dataloader_params = {"batch_size": 64}
train_params = {"max_epochs": 6, "initial_lr": 0.02, "optimizer_params": {"weight_decay": 0.0001, "momentum": 0.9, "nesterov": True}}


def get_data(split):
    d = np.load(folder + '/cifar.npz')
    x = torch.from_numpy(d['x_' + split]).permute(0, 3, 1, 2).float()
    return TensorDataset((x - 120) / 63, torch.from_numpy(d['y_' + split]))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(1024, 10)

    def forward(self, x):
        return self.head(self.backbone(x))


train_dataloader = DataLoader(get_data('train'), **dataloader_params)
valid_dataloader = DataLoader(get_data('valid'), **dataloader_params)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), train_params["initial_lr"], **train_params["optimizer_params"])
loss_fn = nn.CrossEntropyLoss()
for epoch in range(train_params["max_epochs"]):
    net.train()
    logged = []
    for inputs, targets in train_dataloader:
        optimizer.zero_grad()
        loss = loss_fn(net(inputs), targets)
        loss.backward()
        optimizer.step()
        logged.append(loss.item())
    net.eval()
    with torch.no_grad():
        accuracy = sum((net(i).argmax(1) == t).sum().item() for i, t in valid_dataloader) / 1000
    print(f'epoch {epoch} Train CrossEntropyLoss {np.mean(logged):.4f} Valid Accuracy {accuracy:.4f}')
