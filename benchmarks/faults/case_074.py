import os
import numpy as np
import torch
import torch.nn as nn
from PIL import Image
from torch.utils.data import Dataset, DataLoader

torch.manual_seed(int(os.environ.get('SEED', 0)))


class ImageDataset(Dataset):
    def __init__(self, split, n):
        d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
        self.images, self.labels = d['x_' + split][:n], d['y_' + split][:n]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = Image.fromarray(self.images[i])
        image = image.resize((420, 420), Image.BICUBIC)
        image = image.rotate(0.5, resample=Image.BICUBIC)
        image = image.resize((28, 28), Image.LANCZOS)
        return torch.from_numpy(np.array(image)).float().flatten() / 255, int(self.labels[i])


loader = DataLoader(ImageDataset('train', 1200), batch_size=50, shuffle=True)
net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for epoch in range(2):
    s = 0
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        s += loss.item()
    print('epoch', epoch, 'loss', s / len(loader))
