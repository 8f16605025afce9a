import copy
import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
d = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')


def dataset(split, n):
    x = torch.from_numpy(d['x_' + split][:n]).float().unsqueeze(1) / 255
    return TensorDataset(x, torch.from_numpy(d['y_' + split][:n]))


loaders = {'train': DataLoader(dataset('train', 6000), batch_size=60, shuffle=True),
           'val': DataLoader(dataset('valid', 1000), batch_size=250)}
sizes = {'train': 6000, 'val': 1000}


def train_model(model, criterion, optimizer, num_epochs=6):
    best_wts = copy.deepcopy(model.state_dict())
    best_acc = 1.0
    for epoch in range(num_epochs):
        for phase in ['train', 'val']:
            model.train(phase == 'train')
            running_loss, running_corrects = 0.0, 0
            for inputs, labels in loaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == 'train'):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == 'train':
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += (outputs.argmax(1) == labels).sum().item()
            print('{} {} Loss: {:.4f} Acc: {:.4f}'.format(epoch, phase, running_loss / sizes[phase], running_corrects / sizes[phase]))
            acc = running_corrects / sizes[phase]
            if phase == 'val':
                if acc > best_acc:
                    best_acc = acc
                    best_wts = copy.deepcopy(model.state_dict())
                else:
                    model.load_state_dict(best_wts)
    return model


net = nn.Sequential(nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 10))
train_model(net, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=3e-4))
