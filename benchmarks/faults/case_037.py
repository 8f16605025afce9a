import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def train_transform(im):
    im = im.astype(np.float32) / 255.0
    im = (im - MEAN) / STD
    return torch.from_numpy(im.transpose(2, 0, 1).copy())


def val_transform(im):
    im = im.astype(np.float32) / 255.0
    return torch.from_numpy(im.transpose(2, 0, 1).copy())


class Pictures(Dataset):
    def __init__(self, split, transform):
        d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
        self.x, self.y, self.transform = d['x_' + split], d['y_' + split], transform

    def __getitem__(self, i):
        return self.transform(self.x[i]), self.y[i]

    def __len__(self):
        return len(self.y)


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        layers, c = [], 3
        for o in (24, 48, 96):
            layers += [nn.Conv2d(c, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]
            c = o
        self.frontend = nn.Sequential(*layers)
        self.output_layer = nn.Linear(96 * 16, 10)

    def forward(self, x):
        return self.output_layer(self.frontend(x).flatten(1))


train_loader = DataLoader(Pictures('train', train_transform), batch_size=64, shuffle=True)
val_loader = DataLoader(Pictures('valid', val_transform), batch_size=100)
model = Cnn()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
for epoch in range(5):
    model.train()
    for i, (img, target) in enumerate(train_loader):
        loss = criterion(model(img), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    val_loss, hits = 0, 0
    with torch.no_grad():
        for img, target in val_loader:
            out = model(img)
            val_loss += criterion(out, target).item() / len(val_loader)
            hits += (out.argmax(1) == target).sum().item()
    print('epoch {} train {:.3f} val {:.3f} acc {:.4f}'.format(epoch, loss.item(), val_loss, hits / 1000))
