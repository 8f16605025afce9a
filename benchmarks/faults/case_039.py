import os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, hidden_1=256, hidden_2=128, constant_weight=None):
        super(Net, self).__init__()
        self.fc1 = nn.Linear(28 * 28, hidden_1)
        self.fc2 = nn.Linear(hidden_1, hidden_2)
        self.fc3 = nn.Linear(hidden_2, 10)
        if constant_weight is not None:
            for m in self.modules():
                if isinstance(m, nn.Linear):
                    nn.init.constant_(m.weight, constant_weight)
                    nn.init.constant_(m.bias, 0)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return self.fc3(x)


torch.manual_seed(int(os.environ.get('SEED', 0)))
arrays = np.load(os.environ['FAULTS_DATA'] + '/mnist.npz')
train_data = TensorDataset(torch.from_numpy(arrays['x_train'][:10000]).float() / 255, torch.from_numpy(arrays['y_train'][:10000]))
valid_data = TensorDataset(torch.from_numpy(arrays['x_valid'][:2000]).float() / 255, torch.from_numpy(arrays['y_valid'][:2000]))
train_loader = DataLoader(train_data, batch_size=100, shuffle=True)
valid_loader = DataLoader(valid_data, batch_size=100)

model = Net(constant_weight=0.01)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = nn.CrossEntropyLoss()
for epoch in range(1, 6):
    train_loss = 0.0
    for data, target in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(data), target)
        loss.backward()
        optimizer.step()
        train_loss += loss.item() * data.size(0)
    correct = 0
    with torch.no_grad():
        for data, target in valid_loader:
            correct += (model(data).argmax(1) == target).sum().item()
    print('Epoch: {} \tTraining Loss: {:.6f} \tAccuracy: {:.4f}'.format(epoch, train_loss / 10000, correct / 2000))
