import argparse
import os
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser()
parser.add_argument('--seed', type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)

d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
t = lambda s: TensorDataset(torch.from_numpy(d['x_' + s]).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.from_numpy(d['y_' + s]))
dataloaders = {'train': DataLoader(t('train'), batch_size=50, shuffle=True), 'val': DataLoader(t('valid'), batch_size=200)}
lengths = {'train': 5000, 'val': 1000}

model = nn.Sequential(
    nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.LeakyReLU(0.1),
    nn.Conv2d(24, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.LeakyReLU(0.1),
    nn.Conv2d(48, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.LeakyReLU(0.1),
    nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(6):
    print('Epoch {}/{}'.format(epoch, 5))
    print('-' * 10)
    for phase in ('train', 'val'):
        model.train() if phase == 'train' else model.eval()
        running_loss, corrects = 0.0, 0
        for inputs, labels in dataloaders[phase]:
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == 'train'):
                outputs = torch.nn.functional.softmax(model(inputs), dim=1)
                loss = criterion(outputs, labels)
                if phase == 'train':
                    loss.backward()
                    optimizer.step()
            running_loss += loss.item() * inputs.size(0)
            corrects += torch.sum(torch.max(outputs, 1)[1] == labels).item()
        print('{} total loss: {:.4f} acc: {:.4f}'.format(phase, running_loss / lengths[phase], corrects / lengths[phase]))
