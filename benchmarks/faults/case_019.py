import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import Dataset, DataLoader

torch.manual_seed(int(os.environ.get('SEED', 0)))


class Cifar(Dataset):
    def __init__(self, split):
        d = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
        self.images, self.labels = d['x_' + split], d['y_' + split]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = self.images[index] // 255
        image = np.transpose(image, (2, 0, 1)).astype(np.float32)
        return torch.from_numpy(image), torch.tensor(self.labels[index])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 5), nn.Conv2d(16, 32, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1, self.fc2 = nn.Linear(32 * 5 * 5, 120), nn.Linear(120, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        return self.fc2(torch.relu(self.fc1(x.view(-1, 800))))


trainloader = DataLoader(Cifar('train'), batch_size=50, shuffle=True)
testloader = DataLoader(Cifar('valid'), batch_size=100)
net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for epoch in range(5):
    running_loss = 0.0
    for i, (inputs, labels) in enumerate(trainloader, 0):
        optimizer.zero_grad()
        loss = criterion(net(inputs), labels)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        if i % 50 == 49:
            print('[%d, %5d] loss: %.3f' % (epoch + 1, i + 1, running_loss / 50))
            running_loss = 0.0
with torch.no_grad():
    correct = sum((net(x).argmax(1) == y).sum().item() for x, y in testloader)
print('Accuracy of the network on the test images: %.4f' % (correct / 1000))
