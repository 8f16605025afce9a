import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
train = DataLoader(TensorDataset(torch.from_numpy(d['x_train'][:8000]).float().flatten(1) / 255, torch.from_numpy(d['y_train'][:8000])), batch_size=100, shuffle=True)
test_x, test_y = torch.from_numpy(d['x_valid'][:2000]).float().flatten(1) / 255, torch.from_numpy(d['y_valid'][:2000])

model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(6):
    running = 0.0
    for images, labels in train:
        optimizer.zero_grad()
        scores = model(images)
        value, winner = scores.max(dim=1)
        loss = F.smooth_l1_loss(value, labels.float())
        loss.backward()
        optimizer.step()
        running += loss.item()
    with torch.no_grad():
        acc = (model(test_x).argmax(dim=1) == test_y).float().mean().item()
    print('epoch %d  loss %.4f  accuracy %.4f' % (epoch, running / len(train), acc))
