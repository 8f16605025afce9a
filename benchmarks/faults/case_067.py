import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset, DataLoader


class Images(Dataset):
    def __init__(self, train=True):
        d = np.load(os.path.join(os.environ['FAULTS_DATA'], 'mnist.npz'))
        split = 'train' if train else 'valid'
        self.x, self.y = d[f'x_{split}'][:10000], d[f'y_{split}'][:10000]

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]).float().unsqueeze(0) / 255, self.y[i]


class NeuralNetwork(nn.Module):
    def __init__(self):
        super(NeuralNetwork, self).__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
            nn.ReLU()
        )

    def forward(self, x):
        x = self.flatten(x)
        logits = self.linear_relu_stack(x)
        return logits


torch.manual_seed(int(os.environ.get('SEED', 0)))
train_dataloader = DataLoader(Images(True), batch_size=64, shuffle=True)
test_dataloader = DataLoader(Images(False), batch_size=500)
model = NeuralNetwork()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

for epoch in range(4):
    model.train()
    for batch, (X, y) in enumerate(train_dataloader):
        pred = model(X)
        loss = loss_fn(pred, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if batch % 50 == 0:
            print(f'loss: {loss.item():>7f}')
    model.eval()
    with torch.no_grad():
        correct = sum((model(X).argmax(1) == y).sum().item() for X, y in test_dataloader)
    print(f'Epoch {epoch + 1} accuracy: {correct / len(test_dataloader.dataset):.4f}')
