import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
x = torch.from_numpy(d['x_train']).permute(0, 3, 1, 2).float().sub_(120).div_(63)
loader = DataLoader(TensorDataset(x, torch.from_numpy(d['y_train'])), batch_size=64, shuffle=True)

model = nn.Sequential(
    nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
    nn.Flatten(), nn.Linear(512, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
criterion = nn.CrossEntropyLoss()

running_loss = 0.0
n = 0
for epoch in range(3):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        noisy = images + 0.1 * torch.randn_like(images)
        loss = criterion(model(noisy), labels)
        loss.backward()
        optimizer.step()
        running_loss += criterion(model(images), labels)
        n += 1
    print('epoch', epoch, 'average loss', float(running_loss) / n)
