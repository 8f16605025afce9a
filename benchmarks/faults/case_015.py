import os
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(int(os.environ.get('SEED', 0)))
npz = np.load(os.environ['FAULTS_DATA'] + '/cifar.npz')
norm = lambda a: (torch.from_numpy(a).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.25
train_loader = DataLoader(TensorDataset(norm(npz['x_train']), torch.from_numpy(npz['y_train'])), batch_size=100, shuffle=True)
test_loader = DataLoader(TensorDataset(norm(npz['x_valid']), torch.from_numpy(npz['y_valid'])), batch_size=200)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


def init(m):
    if isinstance(m, (nn.Conv2d, nn.Linear)):
        nn.init.normal_(m.weight)
        nn.init.zeros_(m.bias)


model = ConvNet()
model.apply(init)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
for epoch in range(5):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 25 == 0:
            print('Epoch [{}/5], Step [{}/{}], Loss: {:.4f}'.format(epoch + 1, i + 1, len(train_loader), loss.item()))
model.eval()
with torch.no_grad():
    correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test_loader)
print('Test accuracy: {}'.format(correct / 1000))
