import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

seed = int(os.environ.get('SEED', 0))
torch.manual_seed(seed)
np.random.seed(seed)


class Augmented(Dataset):
    def __init__(self, split, n, train):
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.x, self.y, self.train = d['x_' + split][:n], d['y_' + split][:n], train

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        image = self.x[i]
        if self.train:
            image = np.roll(image, np.random.randint(-3, 4, 2), (0, 1))
            r, c = np.random.randint(0, 20, 2)
            image = image.copy()
            image[r:r + 8, c:c + 8] = 0
        return torch.from_numpy(image).float()[None] / 255, self.y[i]


model = nn.Sequential(
    nn.Conv2d(1, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
    nn.Dropout(0.4), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
loss_fn = nn.CrossEntropyLoss()
train, valid = DataLoader(Augmented('train', 8000, True), 64, shuffle=True), DataLoader(Augmented('valid', 1000, False), 250)
for epoch in range(4):
    model.train()
    hits = 0
    for x, y in train:
        out = model(x)
        loss = loss_fn(out, y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        hits += (out.argmax(1) == y).sum().item()
    model.eval()
    with torch.no_grad():
        acc = sum((model(x).argmax(1) == y).sum().item() for x, y in valid) / 1000
    print(f'epoch {epoch} train acc {hits / 8000:.4f} valid acc {acc:.4f}')
